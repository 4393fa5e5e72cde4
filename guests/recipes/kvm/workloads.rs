//! `workloads`: what a program in L2 costs, one line each: `bench: kvm-NAME ticks=N`, in ticks of the TSC for one
//! turn. It needs no library.
//!
//! With a word it ends at once: that is what `fork-exec` executes.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

// RSP holds the number of words, the program's name and the words behind it.
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "call {main}", "ud2", main = sym main);

const READ: u64 = 0;
const WRITE: u64 = 1;
const OPEN: u64 = 2;
const CLOSE: u64 = 3;
const LSEEK: u64 = 8;
const MMAP: u64 = 9;
const MUNMAP: u64 = 11;
const PIPE: u64 = 22;
const GETPPID: u64 = 110;
const FORK: u64 = 57;
const EXECVE: u64 = 59;
const EXIT: u64 = 60;
const WAIT4: u64 = 61;
const UNLINK: u64 = 87;
const IOPL: u64 = 172;
const TIMERFD_CREATE: u64 = 283;
const TIMERFD_SETTIME: u64 = 286;

const O_RDWR_CREATE: u64 = 0o102;
const O_DIRECT: u64 = 0o40000;
const PAGE: u64 = 4096;

/// A system call with up to six arguments; negative results are errors.
fn call(number: u64, arguments: [u64; 6]) -> i64 {
    let result: i64;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: those that this program makes read and write its own memory alone; SYSCALL changes RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    result
}

/// The same with at most three arguments, which has to succeed.
fn must(number: u64, a: u64, b: u64, c: u64) -> u64 {
    let result = call(number, [a, b, c, 0, 0, 0]);
    if result < 0 {
        print(b"bench: kvm: system call ", number);
        print(b"bench: kvm: failed with ", result.unsigned_abs());
        end(1);
    }
    result as u64
}

fn end(status: u64) -> ! {
    loop {
        call(EXIT, [status, 0, 0, 0, 0, 0]);
    }
}

/// Prints a text, a number and a line end. Nothing is copied: that would need a library.
fn print(text: &[u8], number: u64) {
    call(WRITE, [1, text.as_ptr() as u64, text.len() as u64, 0, 0, 0]);
    let mut digits = [b'\n'; 21];
    let mut first = 20;
    let mut left = number;
    for (at, digit) in digits.iter_mut().enumerate().take(20).rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        first = at;
        if left == 0 {
            break;
        }
    }
    let start = digits.as_ptr().wrapping_add(first);
    call(WRITE, [1, start as u64, 21 - first as u64, 0, 0, 0]);
}

fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDTSC changes EAX and EDX alone, and Linux allows it to programs.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Memory of `bytes`, none of it there yet.
fn memory(bytes: u64) -> u64 {
    const READ_AND_WRITE: u64 = 3;
    const PRIVATE_ANONYMOUS: u64 = 0x22;
    let address = call(MMAP, [0, bytes, READ_AND_WRITE, PRIVATE_ANONYMOUS, u64::MAX, 0]);
    if address < 0 {
        print(b"bench: kvm: mmap failed with ", address.unsigned_abs());
        end(1);
    }
    address as u64
}

/// Writes a byte of each page.
fn touch(address: u64, bytes: u64) {
    for page in 0..bytes / PAGE {
        // SAFETY: the memory is this program's.
        unsafe { ((address + page * PAGE) as *mut u8).write_volatile(1) };
    }
}

/// The most runs of a workload.
const MOST_RUNS: usize = 9;

/// A workload: its name, its turns, what the turns are, and how many runs of them there
/// are (up to [`MOST_RUNS`]). The run in the middle counts: in a short one the timer's
/// interrupts, of which it has none or one, would.
type Workload = (&'static [u8], u64, fn(u64), usize);

static WORKLOADS: [Workload; 11] = [
    (b"bench: kvm-cpu ticks=", 100, cpu, 1),
    (b"bench: kvm-first-touch ticks=", 8192, first_touch, 1),
    (b"bench: kvm-fork-exec ticks=", 50, fork_exec, 1),
    (b"bench: kvm-pipe ticks=", 500, pipe, 1),
    (b"bench: kvm-mmap-churn ticks=", 500, mmap_churn, 1),
    (b"bench: kvm-tmpfs ticks=", 1024, tmpfs, 1),
    (b"bench: kvm-syscall ticks=", 2_000, syscall, 9),
    (b"bench: kvm-timer ticks=", 3_000, timer, 1),
    (b"bench: kvm-cpuid ticks=", 60, cpuid, 9),
    (b"bench: kvm-port-write ticks=", 24, port_write, 9),
    (b"bench: kvm-disk-read ticks=", 128, disk_read, 1),
];

extern "C" fn main(stack: *const u64) -> ! {
    // SAFETY: the kernel puts the number of words there.
    if unsafe { stack.read() } > 1 {
        end(0);
    }
    for &(name, turns, work, runs) in &WORKLOADS {
        let mut took = [u64::MAX; MOST_RUNS];
        for run in took.iter_mut().take(runs) {
            let before = ticks();
            work(turns);
            *run = ticks() - before;
        }
        // A division that cannot panic: that would need a library too.
        print(name, middle(&took, runs).checked_div(turns).unwrap_or(0));
    }
    end(0)
}

/// The one of the first `runs` that half of the others are below.
fn middle(took: &[u64; MOST_RUNS], runs: usize) -> u64 {
    let below = |run: u64| took.iter().filter(|other| **other < run).count();
    let mut best = 0;
    for &run in took.iter().take(runs) {
        if below(run) <= runs / 2 && run > best {
            best = run;
        }
    }
    best
}

/// 50,000 instructions a turn, no memory.
fn cpu(turns: u64) {
    // SAFETY: changes one register and the flags.
    unsafe { asm!("2: dec {n}", "jnz 2b", n = inout(reg) turns * 25_000 => _, options(nomem, nostack)) };
}

/// A page a turn that was never touched.
fn first_touch(turns: u64) {
    let bytes = turns * PAGE;
    let address = memory(bytes);
    touch(address, bytes);
    // A fork would copy its tables.
    must(MUNMAP, address, bytes, 0);
}

/// A child that executes this program, to its end.
fn fork_exec(turns: u64) {
    let program = c"/bin/workloads".as_ptr() as u64;
    let words = [program, c"end".as_ptr() as u64, 0];
    for _ in 0..turns {
        let child = must(FORK, 0, 0, 0);
        if child == 0 {
            must(EXECVE, program, words.as_ptr() as u64, 0);
        }
        must(WAIT4, child, 0, 0);
    }
}

/// A byte to another process and back.
fn pipe(turns: u64) {
    let (mut there, mut back) = ([0u32; 2], [0u32; 2]);
    must(PIPE, there.as_mut_ptr() as u64, 0, 0);
    must(PIPE, back.as_mut_ptr() as u64, 0, 0);
    let mut byte = [0u8; 1];
    let at = byte.as_mut_ptr() as u64;
    let is_child = must(FORK, 0, 0, 0) == 0;
    for _ in 0..turns {
        if is_child {
            must(READ, there[0].into(), at, 1);
            must(WRITE, back[1].into(), at, 1);
        } else {
            must(WRITE, there[1].into(), at, 1);
            must(READ, back[0].into(), at, 1);
        }
    }
    if is_child {
        end(0);
    }
    must(WAIT4, u64::MAX, 0, 0);
}

/// 16 pages mapped, touched and unmapped.
fn mmap_churn(turns: u64) {
    for _ in 0..turns {
        let bytes = 16 * PAGE;
        let address = memory(bytes);
        touch(address, bytes);
        must(MUNMAP, address, bytes, 0);
    }
}

/// A page written to a file in memory and read back.
fn tmpfs(turns: u64) {
    let name = c"/tmp/file".as_ptr() as u64;
    let page = memory(PAGE);
    let file = must(OPEN, name, O_RDWR_CREATE, 0o600);
    for _ in 0..turns {
        must(WRITE, file, page, PAGE);
    }
    must(LSEEK, file, 0, 0);
    for _ in 0..turns {
        must(READ, file, page, PAGE);
    }
    must(CLOSE, file, 0, 0);
    must(UNLINK, name, 0, 0);
}

fn syscall(turns: u64) {
    for _ in 0..turns {
        must(GETPPID, 0, 0, 0);
    }
}

/// A timer set and stopped, before the kernel's next tick, so that the CPU's timer is set each time.
fn timer(turns: u64) {
    const CLOCK_MONOTONIC: u64 = 1;
    let timer = must(TIMERFD_CREATE, CLOCK_MONOTONIC, 0, 0);
    // The interval, then the time to the first end, each in seconds and nanoseconds.
    let armed = [0u64, 0, 0, 900_000];
    let stopped = [0u64; 4];
    for _ in 0..turns {
        for time in [&armed, &stopped] {
            must(TIMERFD_SETTIME, timer, 0, time.as_ptr() as u64);
        }
    }
    must(CLOSE, timer, 0, 0);
}

fn cpuid(turns: u64) {
    for _ in 0..turns {
        let _ = core::arch::x86_64::__cpuid(0);
    }
}

/// A byte to a port that nothing listens to: the whole way to QEMU.
fn port_write(turns: u64) {
    must(IOPL, 3, 0, 0);
    for _ in 0..turns {
        // SAFETY: the port is that of the power-on self-test's codes.
        unsafe { asm!("out 0x80, al", in("al") 0u8, options(nomem, nostack)) };
    }
}

/// A page from the disk.
fn disk_read(turns: u64) {
    let page = memory(PAGE);
    let disk = must(OPEN, c"/dev/vda".as_ptr() as u64, O_DIRECT, 0);
    for _ in 0..turns {
        must(READ, disk, page, PAGE);
    }
    must(CLOSE, disk, 0, 0);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    end(2)
}
