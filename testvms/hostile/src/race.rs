//! A second CPU that overwrites what the first has in use.
//!
//! What it writes is drawn from words that leave L1 its ground, whichever of them the first CPU meets:
//! a walk, a list or a bitmap may change between any two looks at it.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use rt::report;

use rt::page::Page;
use rt::random::Random;
use rt::smp::Cpu;
use rt::vmx::ept;
use rt::vmx::insn::{self, read, write};
use rt::vmx::vm::{Mode, Outcome, layout};
use rt::window::{PRESENT, WRITE, Window};
use rt::{acpi, apic, cpu, smp};
use umbra_vmcs::controls::{Pin, Proc2};
use umbra_vmcs::field;

use crate::lab::{Lab, TARGET, is_known, leaf, reason, table};
use crate::place::Kind;

code64! {
    fn bitmap_code = "mov ecx, 0x174", "rdmsr", "in al, 0x80", "vmcall";
    fn touch_code = "mov eax, [0x100020]", "mov [0x100020], eax", "vmcall";
    fn switch_code = "xor eax, eax", "xor ecx, ecx", "vmfunc", "vmcall";
    fn call_code = "vmcall";
}

/// The page of the start-up IPI: free conventional memory.
const START_PAGE: u8 = 0x70;
/// Entries of each case.
const ROUNDS: u32 = 300;

/// Words that the second CPU writes to, and those that it writes; no words: random ones.
const MOST: usize = 8;
static TARGETS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static VALUES: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static VALUE_COUNT: AtomicU32 = AtomicU32::new(0);
static TARGET_COUNT: AtomicU32 = AtomicU32::new(0);
/// The bytes that each target has, from its address on.
static TARGET_BYTES: AtomicU64 = AtomicU64::new(8);
static GOES_ON: AtomicBool = AtomicBool::new(false);
/// For the VMX instructions of the second CPU.
static VMXON_REGION: AtomicU64 = AtomicU64::new(0);
static VMCS: AtomicU64 = AtomicU64::new(0);

/// Runs the group.
pub fn run(lab: &mut Lab) {
    let own = cpu::cpuid(1, 0).ebx >> 24;
    let Some(id) = acpi::apic_ids().find(|id| *id != own) else {
        report::lacks(format_args!("a second CPU"));
        return;
    };
    apic::enable();
    let second = Cpu::new(1, id);
    if !second.restart(START_PAGE) {
        report::check(format_args!("the second CPU starts"), false);
        return;
    }
    bitmaps(lab, &second);
    entry_list(lab, &second);
    ept_tables(lab, &second);
    eptp_list(lab, &second);
    paging(lab, &second);
    pdptes(lab, &second);
    operands(lab, &second);
    revisions(lab, &second);
    if lab.hidden.is_some() {
        active_vmcs(lab, &second);
        vmcs_of_two(lab, &second);
    }
    // It waits for a start-up IPI from now on, and takes no time from the others.
    apic::send(id, apic::Ipi::Init);
}

/// Has the second CPU write while `work` runs.
fn while_overwriting(
    lab: &mut Lab,
    second: &Cpu,
    targets: &[u64],
    bytes: u64,
    values: &[u64],
    mut work: impl FnMut(&mut Lab, u32),
) {
    for (slot, target) in TARGETS.iter().zip(targets) {
        slot.store(*target, SeqCst);
    }
    for (slot, value) in VALUES.iter().zip(values) {
        slot.store(*value, SeqCst);
    }
    TARGET_COUNT.store(targets.len() as u32, SeqCst);
    TARGET_BYTES.store(bytes, SeqCst);
    VALUE_COUNT.store(values.len() as u32, SeqCst);
    with(lab, second, overwrite, &mut work);
}

/// Has the second CPU run `other` while `work` runs, [`ROUNDS`] times.
fn with(lab: &mut Lab, second: &Cpu, other: fn(usize), work: &mut impl FnMut(&mut Lab, u32)) {
    GOES_ON.store(true, SeqCst);
    second.begin(other);
    for round in 0..ROUNDS {
        work(lab, round);
    }
    GOES_ON.store(false, SeqCst);
    let is_back = second.wait();
    report::check(format_args!("the second CPU comes back"), is_back);
    lab.sane(format_args!("after a race"));
}

/// What the second CPU does: a word after another, as fast as it can.
fn overwrite(_index: usize) {
    let mut random = Random::new(0x0c0f_fee0_dead);
    let targets = u64::from(TARGET_COUNT.load(SeqCst)).max(1);
    let values = u64::from(VALUE_COUNT.load(SeqCst));
    let words = TARGET_BYTES.load(SeqCst) / 8;
    while GOES_ON.load(SeqCst) {
        let value = match values {
            0 => random.bits(),
            _ => VALUES[random.below(values) as usize].load(SeqCst),
        };
        let target = TARGETS[random.below(targets) as usize].load(SeqCst) + 8 * random.below(words);
        // SAFETY: the first CPU gave out words of pages that no Rust object lies in.
        unsafe { (target as *mut u64).write_volatile(value) };
    }
}

/// Runs L2 from its first instruction, with an outcome that is open.
fn again(lab: &mut Lab, what: &str, round: u32, reasons: &[u16]) {
    write(field::GUEST_RIP, layout::CODE);
    lab.expect(format_args!("{what} {round}"), reasons);
}

fn bitmaps(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&bitmap_code());
    let targets = [lab.vm.msr_bitmap.address(), lab.vm.io_bitmaps.address()];
    while_overwriting(lab, second, &targets, 4096, &[], |lab, round| {
        let reasons = [reason::RDMSR, reason::IO, reason::VMCALL];
        again(lab, "bitmaps", round, &reasons);
    });
}

fn entry_list(lab: &mut Lab, second: &Cpu) {
    let list = Page::alloc(1);
    for at in (0..4096).step_by(16) {
        list.write(at, 0x174u64);
    }
    lab.prepare(&call_code());
    write(field::VM_ENTRY_MSR_LOAD_ADDRESS, list.address());
    write(field::VM_ENTRY_MSR_LOAD_COUNT, 256);
    // Numbers that may be loaded and that may not; each is harmless as a value, too.
    let values = [0x174, 0xc000_0100, 0x175, 0xffff_ffff];
    let targets = [list.address() + 16 * 100, list.address() + 16 * 200];
    while_overwriting(lab, second, &targets, 16, &values, |lab, round| {
        again(
            lab,
            "entry list",
            round,
            &[reason::VMCALL, reason::ENTRY_MSR],
        );
    });
}

/// Entries of EPT on the way to the page that L2 touches.
fn ept_tables(lab: &mut Lab, second: &Cpu) {
    for flags in [0, 1 << 6] {
        for level in 1..=2 {
            lab.prepare(&touch_code());
            if flags != 0 && lab.vmx.caps.ept_vpid & 1 << 21 == 0 {
                continue;
            }
            let gpa = if level == 1 { TARGET } else { 2 << 20 };
            crate::fields::point(lab, gpa, Mode::Long);
            write(field::EPT_POINTER, lab.vm.ept().pointer() | flags);
            let memory = |kind| {
                lab.places()
                    .filter(move |place| place.kind == kind)
                    .map(|place| place.address)
            };
            let ram = memory(Kind::Ram).next().unwrap_or(0);
            let hidden = memory(Kind::Hidden).next().unwrap_or(ram);
            for place in lab.places().filter(|place| place.is_memory()) {
                place.fill(leaf(ram));
            }
            let values = match level {
                1 => [
                    leaf(ram),
                    leaf(hidden),
                    leaf(ram) & !ept::WRITE,
                    0,
                    u64::MAX,
                ],
                _ => [table(ram), table(hidden), 1, 0, u64::MAX],
            };
            let entry = lab.vm.ept().entry_address(gpa, level);
            while_overwriting(lab, second, &[entry], 8, &values, |lab, round| {
                if round % 2 == 0 {
                    lab.flush();
                }
                let reasons = [
                    reason::VMCALL,
                    reason::EPT_VIOLATION,
                    reason::EPT_MISCONFIGURATION,
                ];
                again(lab, "EPT", round, &reasons);
            });
            lab.vm.ept().set_entry(gpa, level, 0);
        }
    }
}

fn eptp_list(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&switch_code());
    if !lab.has(Proc2::ENABLE_VM_FUNCTIONS) {
        return;
    }
    let list = Page::alloc(1);
    let pointer = lab.vm.ept().pointer();
    let place = lab.places().find(|place| place.kind == Kind::Hidden);
    let elsewhere = place.map_or(0, |place| {
        place.fill(0);
        place.address | 0x1e
    });
    write(field::VM_FUNCTION_CONTROLS, 1);
    write(field::EPTP_LIST_ADDRESS, list.address());
    let values = [pointer, 0, u64::MAX, elsewhere];
    while_overwriting(lab, second, &[list.address()], 8, &values, |lab, round| {
        write(field::EPT_POINTER, pointer);
        let reasons = [reason::VMCALL, reason::VMFUNC, reason::EPT_VIOLATION];
        again(lab, "EPTP list", round, &reasons);
    });
}

/// L2's own paging structures, which EPT keeps within L2's memory.
fn paging(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&touch_code());
    let target = lab.vm.memory.address() + layout::TABLES;
    let good = lab.vm.memory.read::<u64>(layout::TABLES);
    let values = [good, good, good | 1 << 7, 0, layout::TABLES | 7, u64::MAX];
    while_overwriting(lab, second, &[target], 8, &values, |lab, round| {
        let reasons = [
            reason::VMCALL,
            reason::EXCEPTION,
            reason::EPT_VIOLATION,
            reason::TRIPLE_FAULT,
        ];
        // The page under test is not mapped by EPT.
        again(lab, "paging", round, &reasons);
    });
}

/// The PDPTEs that VM entry checks and loads.
fn pdptes(lab: &mut Lab, second: &Cpu) {
    lab.fresh(Mode::Pae, false);
    lab.vm.load(&call_code());
    let rip = read(field::GUEST_RIP);
    let base = lab.vm.memory.address();
    let code = layout::PAGE_TABLE + 8 * (layout::CODE >> 12);
    lab.vm.memory.write(code, (base + layout::CODE) | 7);
    let good = lab.vm.memory.read::<u64>(layout::TABLES);
    let values = [good, good, good | 2, good | 1 << 63, 0, u64::MAX];
    let target = base + layout::TABLES;
    while_overwriting(lab, second, &[target], 8, &values, |lab, round| {
        write(field::GUEST_RIP, rip);
        write(field::GUEST_CR3, target);
        lab.run(format_args!("PDPTEs {round}"));
    });
}

/// L1's own page table, through which its VMX instructions reach their operands.
fn operands(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&call_code());
    let window = Window::open();
    let page = Page::alloc(1);
    let linear = window.map(3, page.address(), PRESENT | WRITE);
    let slot = entry_of(linear);
    let hidden = lab.places().find(|place| place.kind == Kind::Hidden);
    let elsewhere = hidden.map_or(page.address(), |place| place.address) | PRESENT | WRITE;
    let good = page.address() | PRESENT | WRITE;
    let values = [good, elsewhere, 0, good & !WRITE, good | 0x60];
    let own = lab.vm.vmcs.address();
    while_overwriting(lab, second, &[slot], 8, &values, |_, round| {
        let at = linear + 0x100;
        // SAFETY: drops a translation.
        unsafe { asm!("invlpg [{}]", in(reg) linear, options(nostack, preserves_flags)) };
        let stored = rt::vmx_insn!("vmptrst [{p}]", p = in(reg) at);
        let encoding = u64::from(field::CR3_TARGET_VALUE_0.encoding());
        let read = rt::vmx_insn!("vmread [{p}], {e}", p = in(reg) at, e = in(reg) encoding);
        let dropped = rt::vmx_insn!("invept {k}, [{p}]", k = in(reg) 2u64, p = in(reg) at);
        let is_right = [stored, read, dropped].iter().all(|result| match result {
            Err(rt::vmx::VmxError::Fault(fault)) => fault.vector == 14,
            _ => true,
        });
        report::check(format_args!("operands {round}"), is_right);
        let is_kept = insn::vmptrst() == Ok(own);
        report::check(format_args!("current {round}"), is_kept);
    });
    let _ = window.map(3, 0, 0);
}

/// The address of the entry of the window's page table that maps a linear address.
fn entry_of(linear: u64) -> u64 {
    let mut at = cpu::cr3() & !0xfff;
    for shift in [39, 30, 21] {
        // SAFETY: this program's own paging structures, mapped one to one.
        let entry = unsafe { ((at + (linear >> shift & 0x1ff) * 8) as *const u64).read_volatile() };
        at = entry & 0x000f_ffff_ffff_f000;
    }
    at + (linear >> 12 & 0x1ff) * 8
}

/// The revision of a VMCS that is being loaded and cleared.
fn revisions(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&call_code());
    let page = Page::alloc(1);
    let pointer = page.address();
    let own = lab.vm.vmcs.address();
    while_overwriting(lab, second, &[pointer], 4096, &[], |lab, round| {
        page.write(0, lab.vmx.caps.revision());
        let loaded = insn::vmptrld(&pointer);
        let is_right = matches!(loaded, Ok(()) | Err(rt::vmx::VmxError::Valid(11)));
        report::check(format_args!("VMPTRLD {round}"), is_right);
        let is_cleared = insn::vmclear(&pointer).is_ok() && insn::vmptrld(&own).is_ok();
        report::check(format_args!("VMCLEAR {round}"), is_cleared);
    });
}

/// The region of the VMCS by which L2 goes in and out.
fn active_vmcs(lab: &mut Lab, second: &Cpu) {
    lab.prepare(&bitmap_code());
    let target = lab.vm.vmcs.address();
    while_overwriting(lab, second, &[target], 4096, &[], |lab, round| {
        again(lab, "active VMCS", round, &[reason::VMCALL]);
    });
}

/// The second CPU takes the VMCS that the first has active, changes it, enters by it and clears it.
fn vmcs_of_two(lab: &mut Lab, second: &Cpu) {
    let region = lab.vmx.new_vmcs();
    VMXON_REGION.store(region.address(), SeqCst);
    lab.prepare(&call_code());
    VMCS.store(lab.vm.vmcs.address(), SeqCst);
    lab.vm.pin(Pin::empty(), Pin::empty());
    with(lab, second, take_vmcs, &mut |lab: &mut Lab, round| {
        write(field::GUEST_RIP, layout::CODE);
        let outcome = lab.vm.run();
        let is_right = is_known(&outcome) || matches!(outcome, Outcome::Failed(_));
        report::check(format_args!("a VMCS of two {round}: {outcome}"), is_right);
    });
}

/// No exception is expected here: there is one place to note one, and the first CPU has it.
fn take_vmcs(_index: usize) {
    let (region, vmcs) = (VMXON_REGION.load(SeqCst), VMCS.load(SeqCst));
    let host_tr = u64::from(field::HOST_TR_SELECTOR.encoding());
    // SAFETY: VMX operation of this CPU, with a region of its own; what it does to the VMCS of the
    // other is what is tried. No entry succeeds, as there is no host TR: control stays here. Flags are
    // left unread.
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    unsafe {
        cpu::set_cr0(cpu::cr0() | 1 << 5);
        cpu::set_cr4(cpu::cr4() | rt::vmx::CR4_VMXE);
        asm!("vmxon [{}]", in(reg) &raw const region);
        while GOES_ON.load(SeqCst) {
            asm!("vmptrld [{}]", in(reg) &raw const vmcs);
            asm!("vmwrite {}, {}", in(reg) host_tr, in(reg) 0u64);
            asm!("vmlaunch");
            asm!("vmresume");
            asm!("vmclear [{}]", in(reg) &raw const vmcs);
            smp::delay(100);
        }
        asm!("vmxoff");
    }
}
