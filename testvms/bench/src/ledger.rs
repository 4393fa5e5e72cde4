//! Umbra's ledger, as L1's kernel reads it: for runs with Umbra's option `ledger`.

use rt::page::Page;
use rt::run::{self, Place};
use rt::vmx::stub::Registers;
use rt::window::{PRESENT, USER, WRITE, Window};
use rt::{cpu, gdt, println};

use crate::Bench;
use crate::measures::CPUID;
use crate::rounds::{Handler, rounds};

/// The leaf, and its signature "UMLG".
const LEAF: u32 = 0x4fff_4c47;
const SIGNATURE: u32 = 0x474c_4d55;
/// A leaf beside it, which nobody answers.
const OTHER_LEAF: u32 = 0x4fff_4c48;
/// ECX for count and ticks of a cell, and for its accesses.
const EXITS: u32 = 1 << 16;
const ACCESSES: u32 = 2 << 16;
/// The cells of CPUID of L2 and of VMRESUME of L1, both of them asked for by L1.
const L2_CPUID: u32 = 1 << 9 | 10 << 2;
const L1_VMRESUME: u32 = 24 << 2;

fn ask(subleaf: u32) -> [u32; 4] {
    let words = cpu::cpuid(LEAF, subleaf);
    [words.eax, words.ebx, words.ecx, words.edx]
}

impl Bench {
    /// Reads the ledger around some round trips, and tries it from privilege level 3.
    pub fn ledger(&mut self) {
        let [signature, version, cells, more] = ask(0);
        if signature != SIGNATURE {
            println!("bench: there is no ledger (--umbra ledger)");
            return;
        }
        println!(
            "bench: ledger version {version}, {cells} cells, {} CPU",
            more >> 16
        );
        let pointer = self.start(&CPUID, 0, 0);
        for cell in [L2_CPUID, L1_VMRESUME] {
            let before = (ask(EXITS | cell), ask(ACCESSES | cell));
            let _ = rounds(64, Handler::Bare, 2, pointer, 0);
            let after = (ask(EXITS | cell), ask(ACCESSES | cell));
            let count = after.0[0] - before.0[0];
            println!(
                "bench: ledger cell {cell:#x}: {count} of 64 exits, some ticks: {}",
                after.0[2] != before.0[2]
            );
            if more & 1 != 0 {
                let [reads, writes, loads] = [0, 1, 2].map(|n| (after.1[n] - before.1[n]) / 64);
                println!(
                    "bench: ledger cell {cell:#x}: {reads} VMREADs, {writes} VMWRITEs, {loads} VMPTRLDs each"
                );
            }
        }
        println!("bench: ledger beyond the cells: {:?}", ask(EXITS | cells));
        println!(
            "bench: ledger for a program: {}",
            if at_level_3(LEAF) == at_level_3(OTHER_LEAF) {
                "as any leaf"
            } else {
                "answered"
            }
        );
    }
}

/// EAX and EBX of CPUID as a program reads them.
fn at_level_3(leaf: u32) -> (u64, u64) {
    let (window, page, stack) = (Window::open(), Page::alloc(1), Page::alloc(1));
    // cpuid; mov [rsi], rax; mov [rsi + 8], rbx; int3
    page.write_bytes(
        0,
        &[0x0f, 0xa2, 0x48, 0x89, 0x06, 0x48, 0x89, 0x5e, 0x08, 0xcc],
    );
    let code = window.map(0, page.address(), PRESENT | USER);
    let data = window.map(1, stack.address(), PRESENT | WRITE | USER);
    let place = Place {
        code: gdt::USER_CODE64,
        stack: gdt::USER_DATA,
        rip: code,
        rsp: data + 4096,
        fs: 0,
    };
    let registers = Registers {
        rax: leaf.into(),
        rsi: data,
        ..Registers::default()
    };
    let fault = run::run(&place, &registers);
    assert!(fault.vector == 3, "the program met {fault}");
    (stack.read(0), stack.read(8))
}
