//! Exceptions: unexpected ones end the run with a report, expected ones are handed back.
//!
//! An instruction that may fault runs between [`GUARD`] and [`UNGUARD`] in one `asm!` block: the
//! handler then goes on behind it and [`take`] says what happened. Vectors are delivered on
//! stacks of the task-state segment, so that a bad stack pointer is survived.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{cpu, end, gdt, println};

/// An exception that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The vector.
    pub vector: u8,
    /// The error code, zero where the vector has none.
    pub error: u32,
    /// CR2 at the time.
    pub cr2: u64,
    /// The instruction pointer that was pushed.
    pub rip: u64,
    /// The flags that were pushed.
    pub rflags: u64,
}

/// The mnemonic of an exception vector.
pub fn vector_name(vector: u8) -> &'static str {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP", "#SS",
        "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    NAMES.get(usize::from(vector)).copied().unwrap_or("#??")
}

/// Whether the CPU pushes an error code for this vector.
pub fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(vector_name(self.vector))?;
        if has_error_code(self.vector) {
            write!(f, "({:x})", self.error)?;
        }
        if self.vector == 14 {
            write!(f, "@{:x}", self.cr2)?;
        }
        Ok(())
    }
}

/// What the stubs push: general registers, then what the CPU pushed.
#[repr(C)]
pub struct Frame {
    /// R15, R14, R13, R12, R11, R10, R9, R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX.
    pub registers: [u64; 15],
    /// The vector.
    pub vector: u64,
    /// The error code or zero.
    pub error: u64,
    /// RIP.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}

/// Where to go on after an expected exception; zero when none is expected.
#[unsafe(no_mangle)]
pub static RT_RECOVER_RIP: AtomicU64 = AtomicU64::new(0);
/// The stack pointer to go on with; zero for the one that was pushed.
#[unsafe(no_mangle)]
pub static RT_RECOVER_RSP: AtomicU64 = AtomicU64::new(0);

static FAULT: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
static FAULTED: AtomicU64 = AtomicU64::new(0);
/// A function that sees every vector of 32 and above, and NMIs: it returns whether it took it.
static HOOK: AtomicU64 = AtomicU64::new(0);

/// The first lines of a guarded `asm!` block. `{t}` must be a scratch register.
pub const GUARD: &str = "lea {t}, [rip + 77f]\nmov [rip + RT_RECOVER_RIP], {t}";
/// The lines behind the instruction. Flags stay as the instruction left them.
pub const UNGUARD: &str = "77:\nmov qword ptr [rip + RT_RECOVER_RIP], 0";

/// The exception that the last guarded block met, if any.
pub fn take() -> Option<Fault> {
    if FAULTED.swap(0, Relaxed) == 0 {
        return None;
    }
    let [vector, error, cr2, rip, rflags] = [0, 1, 2, 3, 4].map(|i: usize| FAULT[i].load(Relaxed));
    Some(Fault {
        vector: vector as u8,
        error: error as u32,
        cr2,
        rip,
        rflags,
    })
}

/// Takes interrupts and NMIs from now on; `None` gives them back to the report.
pub fn set_hook(hook: Option<fn(&mut Frame) -> bool>) {
    HOOK.store(hook.map_or(0, |f| f as usize as u64), Relaxed);
}

global_asm!(
    r#"
    .balign 16
rt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector == 10) || (vector == 11) || (vector == 12) || (vector == 13) || (vector == 14) || (vector == 17) || (vector == 21)
    .else
    push 0
    .endif
    push vector
    jmp rt_trap_common
    .set vector, vector + 1
    .endr

rt_trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    sub rsp, 512
    fxsave [rsp]
    call {handler}
    fxrstor [rsp]
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
    "#,
    handler = sym handle,
);

unsafe extern "C" {
    static rt_stubs: u8;
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written only by `init`, on the boot CPU.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// The address of the interrupt descriptor table.
pub fn base() -> u64 {
    IDT.0.get() as u64
}

/// The limit of the interrupt descriptor table, in bytes less one.
pub const LIMIT: u16 = 4095;

/// Fills the table in and loads it.
pub(crate) fn init() {
    let stubs = &raw const rt_stubs as u64;
    for vector in 0..256u64 {
        let stub = stubs + vector * 16;
        let stack = match vector {
            8 => 2,
            2 => 3,
            _ => 1,
        };
        // Breakpoints may come from privilege level 3: code under test ends with one.
        let rights = if vector == 3 { 0xee } else { 0x8e };
        let low = stub & 0xffff
            | u64::from(gdt::CODE64) << 16
            | stack << 32
            | rights << 40
            | (stub >> 16 & 0xffff) << 48;
        // SAFETY: the boot CPU alone is running and no reference to the table exists.
        unsafe { (*IDT.0.get())[vector as usize] = [low, stub >> 32] };
    }
    reload();
}

/// Loads IDTR anew: after a test left it otherwise.
pub fn reload() {
    let pointer = gdt::pointer(LIMIT, base());
    // SAFETY: the table is filled in and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) pointer.as_ptr(), options(nostack, preserves_flags)) };
}

/// Decides what becomes of an exception.
extern "C" fn handle(frame: &mut Frame) {
    let vector = frame.vector as u8;
    if vector == 2 || vector >= 32 {
        let hook = HOOK.load(Relaxed);
        if hook != 0 {
            // SAFETY: `set_hook` stores nothing but functions of this type.
            let hook: fn(&mut Frame) -> bool = unsafe { core::mem::transmute(hook as usize) };
            if hook(frame) {
                return;
            }
        }
    }
    let recover = RT_RECOVER_RIP.swap(0, Relaxed);
    let recover_rsp = RT_RECOVER_RSP.swap(0, Relaxed);
    if recover != 0 {
        let values = [
            frame.vector,
            frame.error,
            cpu::cr2(),
            frame.rip,
            frame.rflags,
        ];
        for (slot, value) in FAULT.iter().zip(values) {
            slot.store(value, Relaxed);
        }
        FAULTED.store(1, Relaxed);
        frame.rip = recover;
        frame.cs = u64::from(gdt::CODE64);
        frame.ss = u64::from(gdt::DATA);
        frame.rflags = 2;
        if recover_rsp != 0 {
            frame.rsp = recover_rsp;
        }
        return;
    }
    println!(
        "testvm: unexpected {} error {:#x} at {:#x}:{:#x}, cr2 {:#x}, rsp {:#x}",
        vector_name(vector),
        frame.error,
        frame.cs,
        frame.rip,
        cpu::cr2(),
        frame.rsp,
    );
    end::end_run()
}

/// Executes IRET to the next instruction: NMIs are blocked no more.
pub fn unblock_nmis() {
    // SAFETY: the frame is that of the running code: same stack, same segments, same flags.
    unsafe {
        asm!(
            "mov {t}, rsp",
            "push {data}",
            "push {t}",
            "pushfq",
            "push {code}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "iretq",
            "2: nop",
            "nop",
            t = out(reg) _,
            data = const gdt::DATA,
            code = const gdt::CODE64,
        );
    }
}
