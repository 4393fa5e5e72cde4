//! Descriptor tables: a GDT and a TSS for each CPU, one IDT for all.
//! SDM "Segment Descriptors", "64-Bit Mode IDT", "TSS Structure in 64-Bit Mode".

use crate::sync::BootCell;
use core::arch::asm;

/// Selector of L0's 64-bit code segment.
pub const CODE: u16 = 0x08;
/// Selector of L0's data segment.
pub const DATA: u16 = 0x10;
/// Selector of the TSS.
pub const TSS: u16 = 0x18;

/// Index of the NMI's stack in the interrupt-stack table (from 1).
pub const IST_NMI: u8 = 1;
/// Index of the stack of #DF and #MC.
pub const IST_FATAL: u8 = 2;

const VECTORS: usize = 32;
/// Bytes of a TSS, and where its I/O permission bitmap would begin.
const TSS_BYTES: u64 = 104;

/// One CPU's GDT: null, code, data, TSS (two slots).
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
pub struct Gdt([u64; 5]);

/// A 64-bit TSS. The stack pointers are 8-byte values at 4-byte alignment, so
/// they are kept in halves.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
pub struct TaskState([u32; 26]);

impl TaskState {
    /// A TSS with the two stacks given (their highest addresses) and no I/O
    /// permission bitmap.
    pub fn new(nmi_stack: u64, fatal_stack: u64) -> Self {
        let mut words = [0; 26];
        for (index, stack) in [(IST_NMI, nmi_stack), (IST_FATAL, fatal_stack)] {
            // IST1 is at byte 36.
            let at = 9 + 2 * (usize::from(index) - 1);
            words[at] = stack as u32;
            words[at + 1] = (stack >> 32) as u32;
        }
        // The I/O map base, beyond the limit.
        words[25] = (TSS_BYTES as u32) << 16;
        Self(words)
    }
}

impl Gdt {
    /// A GDT whose TSS descriptor points at `task`.
    pub fn new(task: &TaskState) -> Self {
        let base = &raw const *task as u64;
        Self([
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            (TSS_BYTES - 1) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56,
            base >> 32,
        ])
    }

    /// Makes this the CPU's GDT and loads every segment register and TR.
    ///
    /// # Safety
    /// The GDT, and the TSS that it points at, must stay where they are for
    /// good, and nothing else may change them.
    pub unsafe fn load(&'static mut self) {
        let pointer = x86::dtables::DescriptorTablePointer::new(self);
        // SAFETY: the table has the code and data segments that L0 uses and
        // stays (the caller's promise).
        unsafe { x86::dtables::lgdt(&pointer) };
        // SAFETY: `CODE` and `DATA` are in the table just loaded; the far
        // return goes to the next instruction.
        unsafe {
            asm!(
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2:",
                "mov ds, {data:e}",
                "mov es, {data:e}",
                "mov ss, {data:e}",
                "mov fs, {zero:e}",
                "mov gs, {zero:e}",
                code = in(reg) u64::from(CODE),
                data = in(reg) u32::from(DATA),
                zero = in(reg) 0u32,
                scratch = out(reg) _,
            );
        }
        // A TSS can be loaded only while it is marked available.
        self.0[3] &= !(0x2 << 40);
        // SAFETY: the descriptor is a 64-bit TSS that stays.
        unsafe { asm!("ltr {:x}", in(reg) TSS, options(nostack)) }
    }
}

/// One gate of the IDT.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Gate([u64; 2]);

impl Gate {
    fn new(handler: u64, ist: u8) -> Self {
        Self([
            handler & 0xffff
                | u64::from(CODE) << 16
                | u64::from(ist) << 32
                | 0x8e << 40
                | (handler >> 16 & 0xffff) << 48,
            handler >> 32,
        ])
    }
}

/// The IDT. Only exceptions and NMIs occur in L0, so it ends at vector 31.
#[repr(C, align(16))]
struct Idt([Gate; VECTORS]);

static IDT: BootCell<Idt> = BootCell::new();

/// Where exceptions and NMIs go.
#[derive(Clone, Copy, Debug)]
pub struct Handlers {
    /// The handler of vector 0; that of each further vector follows it.
    pub exceptions: u64,
    /// From one of those to the next, in bytes.
    pub spacing_bytes: u64,
    /// The handler of NMIs.
    pub nmi: u64,
}

/// Fills the IDT. Once, by the first CPU.
///
/// # Safety
/// The addresses are those of code that ends what the CPU began by delivering
/// the exception or NMI.
pub unsafe fn make_idt(handlers: Handlers) {
    let mut gates = [Gate::default(); VECTORS];
    for (gate, vector) in gates.iter_mut().zip(0u64..) {
        let handler = handlers.exceptions + vector * handlers.spacing_bytes;
        *gate = match vector {
            2 => Gate::new(handlers.nmi, IST_NMI),
            8 | 18 => Gate::new(handler, IST_FATAL),
            _ => Gate::new(handler, 0),
        };
    }
    IDT.set(Idt(gates));
}

/// Makes it this CPU's IDT.
pub fn load_idt() {
    let pointer = x86::dtables::DescriptorTablePointer::new(IDT.get());
    // SAFETY: the table is complete and never changes.
    unsafe { x86::dtables::lidt(&pointer) };
}

/// The linear address of the IDT, for the VMCS's host state.
pub fn idt_base() -> u64 {
    &raw const *IDT.get() as u64
}
