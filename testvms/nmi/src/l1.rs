//! L1's own side: an NMI handler that can leave without IRET, so that the code behind it runs with
//! NMIs blocked, and the list of what came to L1.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use rt::trap::{self, Frame};
use rt::{gdt, print};

use crate::apic;

/// What came to L1.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Event {
    /// The first instruction of the NMI handler.
    Nmi,
    /// The last one, IRET.
    Return,
    /// The maskable interrupt.
    Interrupt,
}

/// What the NMI handler does the next time, beside noting the event.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// Nothing.
    None,
    /// Sends an NMI.
    Send,
    /// Sends two.
    SendTwo,
    /// Takes a maskable interrupt, whose IRET unblocks NMIs.
    Nest,
    /// Sends an NMI first, then the same.
    SendAndNest,
}

const CAPACITY: usize = 64;
static EVENTS: [AtomicU32; CAPACITY] = [const { AtomicU32::new(0) }; CAPACITY];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ACTION: AtomicU32 = AtomicU32::new(0);
/// NMIs that L1's handler has seen, since the program began.
static NMIS: AtomicU32 = AtomicU32::new(0);
/// 1: note nothing, only count.
static QUIET: AtomicU32 = AtomicU32::new(0);

/// 1: the NMI handler leaves without IRET.
#[unsafe(no_mangle)]
static NMI_STAYS_BLOCKED: AtomicU32 = AtomicU32::new(0);

// The way out without IRET: RBX, RFLAGS and RIP go onto the interrupted stack, 128 bytes and more
// below its top, which is below the frame that the CPU pushed there too.
global_asm!(
    r#"
nmi_entry:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbp
    mov rbp, rsp
    and rsp, -16
    sub rsp, 512
    fxsave [rsp]
    cld
    call {handler}
    fxrstor [rsp]
    mov rsp, rbp
    pop rbp
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    cmp dword ptr [rip + NMI_STAYS_BLOCKED], 0
    jne 2f
    iretq
2:  push rax
    push rbx
    mov rbx, [rsp + 16 + 24]
    sub rbx, 128 + 16
    mov rax, [rsp + 16 + 16]
    mov [rbx], rax
    mov rax, [rsp + 16]
    mov [rbx + 8], rax
    mov rax, [rsp]
    mov [rbx - 8], rax
    mov rax, [rsp + 8]
    lea rsp, [rbx - 8]
    pop rbx
    popfq
    ret 128
    "#,
    handler = sym on_nmi,
);

unsafe extern "C" {
    static nmi_entry: u8;
}

/// Puts the NMI handler into the interrupt table, and the one of the maskable interrupt.
pub fn init() {
    let entry = &raw const nmi_entry as u64;
    let low =
        entry & 0xffff | u64::from(gdt::CODE64) << 16 | 0x8e << 40 | (entry >> 16 & 0xffff) << 48;
    let gate = (trap::base() + 2 * 16) as *mut u64;
    // SAFETY: the table's own entry of vector 2. The handler runs on the interrupted stack, below
    // which nothing lies, as the program is built without a red zone. No NMI is on its way.
    unsafe {
        gate.write_volatile(low);
        gate.add(1).write_volatile(entry >> 32);
    }
    trap::set_hook(Some(on_interrupt));
}

fn note(event: Event) {
    if QUIET.load(Relaxed) == 0 {
        let at = COUNT.fetch_add(1, Relaxed);
        if let Some(slot) = EVENTS.get(at) {
            slot.store(event as u32, Relaxed);
        }
    }
}

extern "C" fn on_nmi() {
    NMIS.fetch_add(1, Relaxed);
    note(Event::Nmi);
    let action = ACTION.swap(Action::None as u32, Relaxed);
    let is = |other: Action| action == other as u32;
    if is(Action::Send) || is(Action::SendTwo) || is(Action::SendAndNest) {
        apic::send_nmi();
    }
    if is(Action::SendTwo) {
        apic::send_nmi();
    }
    if is(Action::Nest) || is(Action::SendAndNest) {
        apic::send_interrupt();
        open_interrupts();
    }
    if NMI_STAYS_BLOCKED.load(Relaxed) == 0 {
        note(Event::Return);
    }
}

fn on_interrupt(frame: &mut Frame) -> bool {
    let is_ours = frame.vector == u64::from(apic::VECTOR);
    if is_ours {
        note(Event::Interrupt);
        apic::end_of_interrupt();
    }
    is_ours
}

/// Sets what the NMI handler does the next time.
pub fn set_action(action: Action) {
    ACTION.store(action as u32, Relaxed);
}

/// Prints what came to L1 since the last time, in order.
pub fn flush() {
    let count = COUNT.swap(0, Relaxed);
    for slot in EVENTS.iter().take(count) {
        let event = slot.load(Relaxed);
        if event == Event::Nmi as u32 {
            print!(" L1:nmi[");
        } else if event == Event::Return as u32 {
            print!(" ]");
        } else {
            print!(" L1:irq");
        }
    }
    if count > CAPACITY {
        print!(" and {} more", count - CAPACITY);
    }
}

/// NMIs that L1's handler has seen since the program began.
pub fn nmis() -> u32 {
    NMIS.load(Relaxed)
}

/// Whether events are counted alone, for floods.
pub fn set_quiet(is_quiet: bool) {
    QUIET.store(is_quiet.into(), Relaxed);
}

/// Blocks NMIs: takes one and does not return from it.
pub fn block() {
    NMI_STAYS_BLOCKED.store(1, Relaxed);
    apic::send_nmi();
    // The time in which the NMI comes, on a CPU that is not as quick as an emulator.
    for _ in 0..100 {
        core::hint::spin_loop();
    }
    NMI_STAYS_BLOCKED.store(0, Relaxed);
}

/// Lets interrupts in for a moment.
pub fn open_interrupts() {
    // SAFETY: only the maskable interrupt can be pending, and its handler keeps all registers.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

/// Sends an NMI in the instruction after STI, then lets interrupts in.
pub fn send_after_sti() {
    // SAFETY: as for `apic::send_nmi` and `open_interrupts`.
    unsafe {
        asm!("sti", "mov dword ptr [{icr}], {nmi}", "nop", "nop", "cli",
            icr = in(reg) apic::ADDRESS + apic::COMMAND, nmi = const apic::NMI);
    }
}

/// Sends an NMI in the instruction after MOV SS.
pub fn send_after_mov_ss() {
    // SAFETY: as for `apic::send_nmi`; SS gets what it has.
    unsafe {
        asm!("mov {t:e}, ss", "mov ss, {t:e}", "mov dword ptr [{icr}], {nmi}", "nop", "nop",
            t = out(reg) _, icr = in(reg) apic::ADDRESS + apic::COMMAND, nmi = const apic::NMI);
    }
}

/// Halts until an NMI comes.
pub fn halt() {
    // SAFETY: an NMI is on its way, and its handler returns.
    unsafe { asm!("hlt") };
}
