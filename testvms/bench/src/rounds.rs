//! Rounds between L1 and L2 with nothing in L1 but what is measured.
//!
//! The entry stub of `rt` reads a dozen fields after each exit; here the host RIP leads to one of the
//! handlers below, and only RAX, RCX and RDX change between an exit and the next entry. What a round needs lies
//! on the stack that the exit loads, so that each CPU has its own.

use core::arch::global_asm;

use rt::page::Page;
use rt::{gdt, trap};

/// What L1 does between an exit and the next entry.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Handler {
    /// Nothing: L2 executes the same instruction again.
    Bare = 0,
    /// Reads the reason and RIP, writes RIP behind the instruction.
    Skip = 1,
    /// The same, and INVEPT of one context.
    SkipAndInvept = 2,
    /// Makes another VMCS current.
    Turn = 3,
    /// Reads the reason and the guest-physical address, and writes the leaf that was missing.
    Map = 4,
}

global_asm!(
    r#"
    .section .data.bench, "aw"
    .balign 8
bench_handlers: .quad bench_bare, bench_skip, bench_invept, bench_turn, bench_map
    .text

    .macro bench_tsc
    rdtsc
    shl rdx, 32
    or rax, rdx
    .endm

    // [rsp]: rounds left, [rsp + 8]: what the handler gets, [rsp + 16]: the first handler's start,
    // [rsp + 24]: the length of L2's instruction.
    .macro bench_next
    dec qword ptr [rsp]
    jz bench_done
    vmresume
    ud2
    .endm

    .macro bench_step
    mov eax, 0x4402
    vmread rcx, rax
    mov eax, 0x681e
    vmread rcx, rax
    add rcx, [rsp + 24]
    vmwrite rax, rcx
    .endm

    // (rounds, handler, length, what the handler gets, L2's RDI)
    .globl bench_rounds
bench_rounds:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rdx
    push 0
    push rcx
    push rdi
    lea r9, [rip + bench_handlers]
    mov r9, [r9 + 8 * rsi]
    mov rdi, r8
    cmp rsi, 3
    jne 3f
    // Each VMCS of the ring leads here.
    mov r10, rcx
2:  vmptrld [r10]
    mov eax, 0x6c14
    vmwrite rax, rsp
    mov eax, 0x6c16
    vmwrite rax, r9
    mov r10, [r10 + 8]
    cmp r10, rcx
    jne 2b
    vmptrld [rcx]
    jmp 4f
3:  mov eax, 0x6c14
    vmwrite rax, rsp
    mov eax, 0x6c16
    vmwrite rax, r9
4:  bench_tsc
    mov [rsp + 16], rax
    vmresume
    ud2

bench_bare:
    bench_next

bench_skip:
    bench_step
    bench_next

bench_invept:
    bench_step
    mov rcx, [rsp + 8]
    mov eax, 1
    invept rax, [rcx]
    bench_next

bench_turn:
    mov rcx, [rsp + 8]
    mov rcx, [rcx + 8]
    mov [rsp + 8], rcx
    vmptrld [rcx]
    bench_next

    // [rcx]: L2's first address, then each leaf's address and value.
bench_map:
    mov eax, 0x4402
    vmread rcx, rax
    mov eax, 0x2400
    vmread rdx, rax
    mov rcx, [rsp + 8]
    sub rdx, [rcx]
    shr rdx, 12
    shl rdx, 4
    lea rcx, [rcx + rdx + 8]
    mov rax, [rcx + 8]
    mov rcx, [rcx]
    mov [rcx], rax
    bench_next

bench_done:
    bench_tsc
    sub rax, [rsp + 16]
    add rsp, 32
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    cld
    ret
    "#
);

unsafe extern "C" {
    fn bench_rounds(rounds: u64, handler: u64, length: u64, data: *const u64, rdi: u64) -> u64;
}

/// Enters a launched L2 `rounds` times and returns the ticks for all of them. L2 starts with `rdi`;
/// its other registers are undefined, and RAX, RCX and RDX are after each exit. `length` is that of the
/// instruction that exits, in bytes.
pub fn rounds(rounds: u64, handler: Handler, length: u64, eptp: u64, rdi: u64) -> u64 {
    assert!(!matches!(handler, Handler::Turn | Handler::Map));
    let descriptor = [eptp, 0];
    // SAFETY: the descriptor is what the handlers with INVEPT take, the others take nothing.
    unsafe { run(rounds, handler, length, &descriptor, rdi) }
}

/// The same with the launched VMCSs of a ring in turn, the first of which is current at the end of `rounds` that
/// are a multiple of their number.
pub fn turns(rounds: u64, ring: &Ring) -> u64 {
    // SAFETY: the ring holds addresses of launched VMCSs and of its own entries.
    unsafe { run(rounds, Handler::Turn, 0, ring.entries.as_flattened(), 0) }
}

/// The same with an L2 that touches one page after another from `rdi` on, of which ept12 maps none: each is an exit,
/// in which L1 writes the leaf. `leaves` has room for all of them and holds their addresses and values.
pub fn maps(rounds: u64, leaves: &Leaves, rdi: u64) -> u64 {
    assert!(leaves.words[0] == rdi && rounds < LEAVES as u64);
    // SAFETY: the leaves are entries of EPT tables of this program's, more than there are rounds.
    unsafe { run(rounds, Handler::Map, 0, &leaves.words, rdi) }
}

/// The most leaves that L1 writes.
pub const LEAVES: usize = 128;

/// L2's first page, then the address and value of the leaf of each.
pub struct Leaves {
    words: [u64; 1 + 2 * LEAVES],
}

impl Leaves {
    /// Those of the pages from `from` on.
    pub fn new(from: u64, leaf: impl Fn(u64) -> (u64, u64)) -> Self {
        let mut words = [from; 1 + 2 * LEAVES];
        for n in 0..LEAVES {
            (words[1 + 2 * n], words[2 + 2 * n]) = leaf(n as u64);
        }
        Self { words }
    }
}

/// # Safety
/// `data` must be what the handler takes.
unsafe fn run(rounds: u64, handler: Handler, length: u64, data: &[u64], rdi: u64) -> u64 {
    // SAFETY: the function keeps the C calling convention; L2 is one of this program's, which exits by the
    // instruction that is measured and reaches nothing of L1's.
    let ticks = unsafe { bench_rounds(rounds, handler as u64, length, data.as_ptr(), rdi) };
    // An exit leaves limits of 0xffff.
    gdt::reload();
    trap::reload();
    ticks
}

/// The most VMCSs that take turns.
pub const MOST_TURNS: usize = 64;

/// VMCSs that take turns: each with the address of the next entry.
pub struct Ring {
    entries: [[u64; 2]; MOST_TURNS],
}

impl Ring {
    /// Where the ring of [`Ring::of`] is built.
    pub const fn new() -> Self {
        Self {
            entries: [[0; 2]; MOST_TURNS],
        }
    }

    /// Makes a ring of these VMCSs; it must stay where it is.
    pub fn of(&mut self, vmcss: &[Page]) {
        let first = self.entries.as_ptr();
        for (n, vmcs) in vmcss.iter().enumerate() {
            let next = (n + 1) % vmcss.len();
            self.entries[n] = [vmcs.address(), first.wrapping_add(next) as u64];
        }
    }
}
