//! What belongs to one CPU.
//!
//! Each CPU has an area of its own in linear memory, found by the GS base,
//! with an unmapped page below each stack:
//!
//! ```text
//! CPU_AREAS + index * CPU_AREA_BYTES
//!   +0x00000  unmapped
//!   +0x01000  stack of VM exits       (STACK_PAGES)
//!             unmapped
//!             stack of NMIs           (NMI_STACK_PAGES)
//!             unmapped
//!             stack of #DF and #MC    (FATAL_STACK_PAGES)
//!             unmapped
//!             PerCpu
//! ```

use crate::arch::desc::{Gdt, TaskState};
use crate::cpu::app::App;
use crate::cpu::counters::{Ept02Ledger, Ledger};
use crate::cpu::registers::Registers;
use crate::machine::machine;
use crate::mem::paging::{Access, AddressSpace, PageSize, pages};
use crate::mem::{OwnedPages, PAGE_BYTES, PagePool, pointer};
use crate::merged_bitmap::OpenWords;
use core::mem::offset_of;
use core::sync::atomic::AtomicBool;
use umbra_arch::Linear;
use umbra_core::ending::Watch;
use umbra_core::options::Options;
use umbra_core::trace::Ring;
use umbra_core::vmcs_state::VmcsState;
use umbra_ept::ept01::Ept01;
use umbra_ept::mtrr::Mtrrs;
use umbra_nested::slots::{Slot, Slots};
use umbra_nested::{Lent, Nested};
use umbra_nmi::{Inbox, NmiMachine};
use umbra_vmcs::VmxCaps;
use umbra_vmcs::field::FieldSet;

/// Where the areas begin.
pub const CPU_AREAS: u64 = 0xffff_ff00_0000_0000;
/// From one CPU's area to the next, in bytes.
pub const CPU_AREA_BYTES: u64 = 1 << 20;

const STACK_PAGES: u64 = 16;
const NMI_STACK_PAGES: u64 = 2;
const FATAL_STACK_PAGES: u64 = 4;

const STACK: u64 = PAGE_BYTES;
const STACK_TOP: u64 = STACK + STACK_PAGES * PAGE_BYTES;
const NMI_STACK: u64 = STACK_TOP + PAGE_BYTES;
const NMI_STACK_TOP: u64 = NMI_STACK + NMI_STACK_PAGES * PAGE_BYTES;
const FATAL_STACK: u64 = NMI_STACK_TOP + PAGE_BYTES;
const FATAL_STACK_TOP: u64 = FATAL_STACK + FATAL_STACK_PAGES * PAGE_BYTES;
const PER_CPU: u64 = FATAL_STACK_TOP + PAGE_BYTES;

/// Everything at the end of a CPU's area. The assembly stubs know `this`,
/// `shared.nmi_inbox` and `cpu.regs`.
#[repr(C)]
pub struct PerCpu {
    /// Linear address of this object, for code that has only GS.
    pub this: u64,
    gdt: Gdt,
    task: TaskState,
    /// What other CPUs and the NMI handler may look at.
    pub shared: Shared,
    /// What only this CPU's exit handlers touch.
    pub cpu: Cpu,
    /// VMX as L1 sees it.
    pub nested: Nested,
}

const _: () = assert!(PER_CPU + size_of::<PerCpu>() as u64 <= CPU_AREA_BYTES);
// The stubs move XMM registers with aligned instructions.
const _: () = assert!(offset_of!(PerCpu, cpu.regs.xmm) % 16 == 0);

/// What other CPUs and the NMI handler may look at: atomics alone, and where
/// more of them are.
#[derive(Debug)]
#[repr(C)]
pub struct Shared {
    /// Where `nmi_stub` leaves word of an NMI that arrived while L0 ran.
    pub nmi_inbox: Inbox,
    /// Whether the CPU is in VMX operation.
    pub is_vmx_on: AtomicBool,
    /// Whether the CPU has entered L1 for the first time, or is about to.
    pub is_running: AtomicBool,
    /// The exits counted.
    pub ledger: Ledger,
    /// What the ept02 caches did, as of the last exit that said so.
    pub ept02: Ept02Ledger,
    /// The exits that the trace keeps.
    pub trace: Ring<'static>,
}

/// Pages that each CPU gets.
#[derive(Debug)]
pub struct CpuPages {
    /// VMXON region.
    pub vmxon: OwnedPages,
    /// vmcs01.
    pub vmcs01: OwnedPages,
    /// The shadow VMCS that L2 reaches where L1 uses VMCS shadowing.
    pub shadow: OwnedPages,
    /// vmcs01's MSR bitmap.
    pub msr_bitmap: OwnedPages,
    /// vmcs01's two I/O bitmaps.
    pub io_bitmaps: OwnedPages,
    /// Bitmaps for vmcs01: VMREAD's and VMWRITE's for each way of lending a vmcs02.
    pub field_bitmaps: OwnedPages,
    /// vmcs02 regions, one for each slot of `nested`.
    pub vmcs02: OwnedPages,
    /// Those slots.
    pub slots: OwnedPages,
    /// For nested VMX: merged bitmaps, lists and the like.
    pub nested: OwnedPages,
    /// For ept02 caches.
    pub ept02: OwnedPages,
}

/// How many pages a CPU has for nested VMX besides.
pub const NESTED_PAGES: u64 = 64;

/// One CPU, as its exit handlers see it.
#[repr(C)]
pub struct Cpu {
    /// The registers of L1 or L2.
    pub regs: Registers,
    /// The part that others see.
    pub shared: &'static Shared,
    /// Number of the CPU, 0 for the one that booted.
    pub index: u32,
    /// Its local APIC id.
    pub apic_id: u32,
    /// Which VMCS is current.
    pub vmcs: VmcsState,
    /// The fields that this CPU's VMCSs have.
    pub present: FieldSet,
    /// The VMX capabilities that L1 sees.
    pub offered: VmxCaps,
    /// The words of L2's MSR bitmap that are open.
    pub open_words: OpenWords,
    /// Whether L1 is in VMX operation.
    pub is_l1_in_vmx: bool,
    /// What becomes of it.
    pub nmi: NmiMachine,
    /// The page of the start-up IPI that L1 was started by on this CPU.
    pub start_page: Option<u8>,
    /// L1's IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// L1's MTRRs. The CPU's own stay as the firmware set them.
    pub mtrrs: Mtrrs,
    /// They have changed, and ept01 does not know yet.
    pub has_new_mtrrs: bool,
    /// L1's view of memory.
    pub ept01: Ept01,
    /// Its types changed, and ept02 does not know yet.
    pub is_ept01_changed: bool,
    /// L1's port writes that end the run.
    pub watch: Watch,
    /// The hypapp's own.
    pub hypapp: App,
    /// The pages.
    pub pages: CpuPages,
}

/// How many pages a CPU has for the exit trace, if it is on.
const TRACE_PAGES: u64 = 16;

/// How many pages the exit trace takes on each CPU.
fn trace_pages(options: &Options) -> u64 {
    if options.trace.is_some() {
        TRACE_PAGES
    } else {
        0
    }
}

/// How many pages the ept02 caches of one CPU take.
fn ept02_pages(options: &Options) -> u64 {
    u64::from(options.max_active_ept) * u64::from(options.ept02_pages)
}

/// How many pages the slots for this many vmcs12s take.
const fn slot_pages(vmcs12s: u64) -> u64 {
    pages(vmcs12s * size_of::<Slot>() as u64)
}

const FIELD_BITMAPS: u64 = 2 * Lent::ALL.len() as u64;

/// The pages of [`CpuPages`] that no option changes the number of.
const SINGLE_PAGES: u64 = 6 + FIELD_BITMAPS;

/// How many pages one CPU takes, without its ept01 and page tables.
pub fn fixed_pages(options: &Options) -> u64 {
    let vmcs12s = u64::from(options.vmcs12s);
    STACK_PAGES
        + NMI_STACK_PAGES
        + FATAL_STACK_PAGES
        + pages(size_of::<PerCpu>() as u64)
        + SINGLE_PAGES
        + vmcs12s
        + slot_pages(vmcs12s)
        + NESTED_PAGES
        + ept02_pages(options)
        + trace_pages(options)
}

fn area(index: u32) -> u64 {
    CPU_AREAS + u64::from(index) * CPU_AREA_BYTES
}

fn of(index: u32) -> *mut PerCpu {
    (area(index) + PER_CPU) as *mut PerCpu
}

/// Maps and fills the area of CPU `index`: stacks, tables, pages.
// Its one unsafe block fills one object, field by field.
#[allow(clippy::multiple_unsafe_ops_per_block)]
pub fn create(pool: &mut PagePool, space: &mut AddressSpace, index: u32, apic_id: u32) {
    let area = area(index);
    let per_cpu_pages = pages(size_of::<PerCpu>() as u64);
    for (at, count) in [
        (STACK, STACK_PAGES),
        (NMI_STACK, NMI_STACK_PAGES),
        (FATAL_STACK, FATAL_STACK_PAGES),
        (PER_CPU, per_cpu_pages),
    ] {
        let run = pool.take(count);
        let (linear, bytes) = (Linear::new(area + at), count * PAGE_BYTES);
        let physical = run.base().raw();
        // SAFETY: in this CPU's area, where nothing is yet, and pages taken for this alone.
        unsafe {
            space.map(
                pool,
                linear,
                physical,
                bytes,
                PageSize::Small,
                Access::Write,
            )
        };
    }
    let options = &machine().options;
    let vmcs12s = u64::from(options.vmcs12s);
    let pages = CpuPages {
        vmxon: pool.take(1),
        vmcs01: pool.take(1),
        shadow: pool.take(1),
        msr_bitmap: pool.take(1),
        io_bitmaps: pool.take(2),
        field_bitmaps: pool.take(FIELD_BITMAPS),
        vmcs02: pool.take(vmcs12s),
        slots: pool.take(slot_pages(vmcs12s)),
        nested: pool.take(NESTED_PAGES),
        ept02: pool.take(ept02_pages(options)),
    };
    let trace = Ring::new(pool.take(trace_pages(options)).into_shared_words());
    let mtrrs = crate::platform::mtrr::of_this_cpu();
    let ept01 = crate::platform::ept01::build(pool, &mtrrs);
    let this = of(index);
    // SAFETY: the area was mapped just now with zeroed pages and belongs to
    // this CPU alone; zeroed memory is a valid `Shared` (atomics alone) but for
    // `trace`. Each field is written before anything refers to it.
    unsafe {
        (&raw mut (*this).this).write(this as u64);
        (&raw mut (*this).task).write(TaskState::new(area + NMI_STACK_TOP, area + FATAL_STACK_TOP));
        (&raw mut (*this).gdt).write(Gdt::new(&(*this).task));
        (&raw mut (*this).shared.trace).write(trace);
        (&raw mut (*this).cpu).write(Cpu {
            regs: Registers::default(),
            shared: &(*this).shared,
            index,
            apic_id,
            vmcs: VmcsState::new(),
            present: FieldSet::EMPTY,
            offered: VmxCaps::default(),
            open_words: OpenWords::new(),
            is_l1_in_vmx: false,
            nmi: NmiMachine::new(),
            start_page: None,
            feature_control: machine().feature_control,
            mtrrs,
            ept01,
            has_new_mtrrs: false,
            is_ept01_changed: false,
            watch: Watch::new(machine().acpi.pm1_control, machine().acpi.reset),
            hypapp: App::default(),
            pages,
        });
    }
}

/// Makes CPU `index`'s area that of the CPU that runs this: GDT, TSS, IDT, GS.
///
/// # Safety
/// [`create`] was called for `index`, and no other CPU uses that area.
pub unsafe fn adopt(index: u32) -> &'static mut Cpu {
    let this = of(index);
    // SAFETY: the area is complete and this CPU's alone (the caller's
    // promise), so this is the one reference to the GDT.
    let gdt = unsafe { &mut (*this).gdt };
    // SAFETY: the GDT and the TSS stay in the area for good.
    unsafe { gdt.load() };
    // SAFETY: GS is only used to find the area.
    unsafe { crate::arch::msr::write(crate::arch::msr::IA32_GS_BASE, this as u64) };
    crate::arch::desc::load_idt();
    // SAFETY: as above: the one reference to this CPU's private part.
    unsafe { &mut (*this).cpu }
}

/// HOST_RSP of CPU `index`.
pub fn host_rsp(index: u32) -> u64 {
    area(index) + STACK_TOP
}

/// Linear addresses of the GDT and the TSS of CPU `index`, for the host state.
pub fn host_tables(index: u32) -> (u64, u64) {
    let this = of(index) as u64;
    (
        this + offset_of!(PerCpu, gdt) as u64,
        this + offset_of!(PerCpu, task) as u64,
    )
}

/// GS base of CPU `index`.
pub fn host_gs_base(index: u32) -> u64 {
    of(index) as u64
}

/// The shared part of CPU `index`, which must have been created.
pub fn shared(index: u32) -> &'static Shared {
    assert!(index < machine().cpu_count(), "CPU {index} does not exist");
    // SAFETY: areas of all CPUs are created before anyone asks, and the shared
    // part consists of atomics.
    unsafe { &(*of(index)).shared }
}

/// The shared parts of all CPUs.
pub fn all() -> impl Iterator<Item = &'static Shared> {
    (0..machine().cpu_count()).map(shared)
}

/// The number of the CPU that runs this; `None` before it has its area.
pub fn own_index() -> Option<u32> {
    let base = crate::arch::msr::read_safe(crate::arch::msr::IA32_GS_BASE)?;
    let offset = base.checked_sub(CPU_AREAS)?;
    u32::try_from(offset / CPU_AREA_BYTES).ok()
}

/// Whether the CPU that runs this is in VMX operation.
pub fn is_vmx_on() -> bool {
    use core::sync::atomic::Ordering;
    let base = crate::arch::msr::read_safe(crate::arch::msr::IA32_GS_BASE).unwrap_or(0);
    if base < CPU_AREAS {
        return false;
    }
    // SAFETY: GS points at this CPU's area since `adopt`.
    unsafe {
        (*(base as *const PerCpu))
            .shared
            .is_vmx_on
            .load(Ordering::Relaxed)
    }
}

/// Counts an access of the CPU that runs this to its current VMCS.
#[cfg(feature = "ledger-accesses")]
#[inline]
pub fn count_access(access: crate::cpu::counters::Access) {
    // SAFETY: GS points at this CPU's area since `adopt`, before which no VMCS is current; a counter that only this
    // CPU writes.
    unsafe {
        core::arch::asm!(
            "inc qword ptr gs:[8 * {access} + {accesses}]",
            access = in(reg) access as usize,
            accesses = const offset_of!(PerCpu, shared.ledger.accesses),
            options(nostack)
        );
    }
}

/// The private parts of the CPU at `this`, for the exit stub.
///
/// # Safety
/// `this` is what GS points at, and no other reference to it exists: the stub
/// calls its handler once at a time.
pub unsafe fn from_stub<'a>(this: *mut PerCpu) -> (&'a mut Cpu, &'a mut Nested) {
    // SAFETY: the caller's promise.
    let cpu = unsafe { &mut (*this).cpu };
    // SAFETY: as above; the two fields are apart.
    (cpu, unsafe { &mut (*this).nested })
}

/// The slots for the vmcs12s of this CPU, all free.
///
/// # Safety
/// Called once for each CPU.
pub unsafe fn slots(cpu: &Cpu) -> Slots {
    let count = cpu.pages.vmcs02.count() as usize;
    let first = pointer(cpu.pages.slots.base().raw()).cast::<Slot>();
    for n in 0..count {
        // SAFETY: the pages are this CPU's own, mapped, aligned, and hold `count` slots.
        unsafe { first.wrapping_add(n).write(Slot::free()) };
    }
    // SAFETY: as above; each was written, and nothing else ever refers to them (the
    // caller's promise).
    let slots = unsafe { core::slice::from_raw_parts_mut(first, count) };
    Slots::new(slots, u16::try_from(cpu.index).unwrap_or(u16::MAX))
}

/// Fills CPU `index`'s part for nested VMX.
///
/// # Safety
/// [`create`] was called for `index`, and nothing refers to that part yet.
pub unsafe fn set_nested(index: u32, nested: Nested) {
    // SAFETY: the area is mapped.
    let part = unsafe { &raw mut (*of(index)).nested };
    // SAFETY: the caller's promise.
    unsafe { part.write(nested) };
}
