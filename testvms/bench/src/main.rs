//! bench: what an exit and a page of L2 cost, in ticks.
//!
//! See `README.md` beside this crate for the measures and how to read them.
#![no_std]
#![no_main]

mod instructions;
mod rounds;
mod toucher;

use instructions::ROW;
use rounds::{Handler, rounds};
use rt::vmx::Vmx;
use rt::vmx::ept::{ALL, LARGE, WRITE_BACK};
use rt::vmx::insn::write;
use rt::vmx::vm::{Mode, Vm, layout};
use rt::{Boot, println};
use toucher::{Kind, Toucher};
use umbra_vmcs::field;

rt::entry!(main);

/// Rounds of each measure, after a warm-up.
const ROUNDS: u64 = 32;
/// 4 KiB pages of a first touch.
const PAGES: u64 = 64;
const PAGE: u64 = 4096;
/// What a touch of 64 MiB covers, in bytes.
const LARGE_BYTES: u64 = 64 << 20;
/// Where the pages of a measure begin in L2's memory, and one GiB and more behind it.
const NEAR: u64 = 1 << 30;
const APART: u64 = 2 << 30;
const FLAGGED: u64 = 3 << 30;
const HUGE: u64 = 8 << 30;
/// L1's memory that L2 touches, 64 MiB of it: behind this program, and used by nothing.
const SOURCE: u64 = 64 << 20;
/// EPT pointer: accessed and dirty flags on.
const FLAGS_ON: u64 = 1 << 6;

/// A measure: its word on the command line and what it runs.
type Measure = (&'static str, fn(&mut Bench));

const MEASURES: [Measure; 7] = [
    ("exit", Bench::exit),
    ("instructions", Bench::instructions),
    ("first-touch", Bench::first_touch),
    ("apart", Bench::apart),
    ("flags", Bench::flags),
    ("invept", Bench::invept),
    ("large", Bench::large),
];

fn main(boot: &Boot) {
    for word in boot.words() {
        if !MEASURES.iter().any(|(name, _)| *name == word) {
            println!("bench: unknown word '{word}'; give names of measures");
            return;
        }
    }
    let vmx = match Vmx::prepare() {
        Ok(vmx) if vmx.has_ept() => vmx,
        Ok(_) => {
            println!("bench: this CPU has no EPT");
            return;
        }
        Err(why) => {
            println!("bench: {why}");
            return;
        }
    };
    vmx.enable();
    if let Err(error) = vmx.on() {
        println!("bench: VMXON: {error}");
        return;
    }
    let mut bench = Bench::new(vmx);
    for (name, measure) in MEASURES {
        if boot.words().next().is_none() || boot.words().any(|word| word == name) {
            measure(&mut bench);
        }
    }
    println!("bench: done");
}

struct Bench {
    vmx: Vmx,
    vm: Vm,
}

fn print(name: &str, ticks: u64) {
    println!("bench: {name} ticks={ticks}");
}

impl Bench {
    fn new(vmx: Vmx) -> Self {
        let vm = Vm::new(&vmx);
        Self { vmx, vm }
    }

    /// L2 anew in front of `code`, with EPT flags in its pointer; it runs to its first exit.
    fn start(&mut self, code: &[u8], flags: u64, rdi: u64) -> u64 {
        self.vm.reset(Mode::Long, true);
        // L2's linear addresses from 1 GiB on are its physical ones, by its own 1 GiB pages.
        for gib in 1..512u64 {
            self.vm
                .memory
                .write(layout::TABLES + 0x1000 + 8 * gib, gib << 30 | 0xe7);
        }
        let pointer = self.vm.ept().pointer() | flags;
        write(field::EPT_POINTER, pointer);
        self.vm.memory.write_bytes(layout::CODE, code);
        self.vm.jump(0);
        self.vm.registers.rdi = rdi;
        let outcome = self.vm.run();
        if let rt::vmx::Outcome::Exit(exit) = outcome
            && matches!(exit.basic(), 10 | 18)
        {
            self.vm.skip(&exit);
            return pointer;
        }
        panic!("L2 did not reach its first exit: {outcome}");
    }

    /// The bare round trip, and one as a hypervisor makes it.
    fn exit(&mut self) {
        // cpuid; jmp back
        let pointer = self.start(&[0x0f, 0xa2, 0xeb, 0xfc], 0, 0);
        let _ = rounds(2, Handler::Bare, 2, pointer, 0);
        print(
            "exit-bare",
            rounds(ROUNDS, Handler::Bare, 2, pointer, 0) / ROUNDS,
        );
        let _ = rounds(2, Handler::Skip, 2, pointer, 0);
        print(
            "exit-skip",
            rounds(ROUNDS, Handler::Skip, 2, pointer, 0) / ROUNDS,
        );
        let _ = rounds(2, Handler::SkipAndInvept, 2, pointer, 0);
        let ticks = rounds(ROUNDS, Handler::SkipAndInvept, 2, pointer, 0);
        print("exit-skip-invept", ticks / ROUNDS);
    }

    fn instructions(&mut self) {
        let _ = self.start(&[0x0f, 0xa2], 0, 0);
        let _ = instructions::vmread();
        print("vmread", instructions::vmread() / ROW);
        let _ = instructions::vmwrite();
        print("vmwrite", instructions::vmwrite() / ROW);
        let second = self.vmx.new_vmcs();
        instructions::prepare(second);
        let _ = instructions::vmptrld(self.vm.vmcs, second);
        print("vmptrld", instructions::vmptrld(self.vm.vmcs, second) / ROW);
    }

    /// Ticks a page that a first touch costs, beside the touch itself and the exit after each 64 pages.
    fn touch(&mut self, name: &str, from: u64, stride: u64, flags: u64, kind: Kind) {
        let pointer = self.start(
            Toucher::again(PAGES, 0, kind, layout::DATA).bytes(),
            flags,
            0,
        );
        let _ = rounds(4, Handler::Skip, 3, pointer, 0);
        let warm = rounds(ROUNDS, Handler::Skip, 3, pointer, 0);
        let pointer = self.start(Toucher::onward(PAGES, stride, kind).bytes(), flags, from);
        let next = from + PAGES * stride;
        let first = rounds(ROUNDS, Handler::Skip, 3, pointer, next);
        print(name, first.saturating_sub(warm) / (ROUNDS * PAGES));
    }

    /// Maps the 4 KiB pages of a measure from an address on, to as many pages of L1's side by side.
    fn map(&mut self, from: u64, stride: u64, bits: u64) {
        for n in 0..(ROUNDS + 2) * PAGES {
            let page = SOURCE + n * PAGE;
            self.vm.ept().map(from + n * stride, page, bits);
        }
    }

    /// Pages side by side.
    fn first_touch(&mut self) {
        self.map(NEAR, PAGE, ALL);
        self.touch("first-touch-4k", NEAR, PAGE, 0, Kind::Read);
    }

    /// Pages 64 KiB from one another.
    fn apart(&mut self) {
        self.map(APART, 16 * PAGE, ALL);
        self.touch("first-touch-4k-apart", APART, 16 * PAGE, 0, Kind::Read);
    }

    /// Pages side by side with accessed and dirty flags on: none set, as KVM sets them, a first write.
    fn flags(&mut self) {
        if self.vmx.caps.ept_vpid & 1 << 21 == 0 {
            println!("bench: accessed and dirty flags are not offered");
            return;
        }
        let set = FLAGGED + (1 << 29);
        self.map(FLAGGED, PAGE, ALL);
        self.map(set, PAGE, ALL | 3 << 8);
        self.touch("first-touch-4k-flags", FLAGGED, PAGE, FLAGS_ON, Kind::Read);
        self.touch("first-write-4k-flags", FLAGGED, PAGE, FLAGS_ON, Kind::Write);
        self.touch("first-touch-4k-flags-set", set, PAGE, FLAGS_ON, Kind::Write);
    }

    /// L2 touches the same pages again and again, and L1 does INVEPT in each exit.
    fn invept(&mut self) {
        self.map(NEAR, PAGE, ALL);
        for (count, name) in [
            (1, "exit-touch-1-invept"),
            (32, "exit-touch-32-invept"),
            (64, "exit-touch-64-invept"),
        ] {
            let code = Toucher::again(count, PAGE, Kind::Read, NEAR);
            let pointer = self.start(code.bytes(), 0, 0);
            let _ = rounds(4, Handler::SkipAndInvept, 3, pointer, 0);
            let ticks = rounds(ROUNDS, Handler::SkipAndInvept, 3, pointer, 0);
            print(name, ticks / ROUNDS);
        }
        let code = Toucher::again(32, PAGE, Kind::Read, NEAR);
        let pointer = self.start(code.bytes(), 0, 0);
        let _ = rounds(4, Handler::Skip, 3, pointer, 0);
        let ticks = rounds(ROUNDS, Handler::Skip, 3, pointer, 0);
        print("exit-touch-32", ticks / ROUNDS);
    }

    /// 64 MiB by 2 MiB pages, each 4 KiB read once, another 64 MiB of L2's each round.
    fn large(&mut self) {
        if self.vmx.caps.ept_vpid & 1 << 16 == 0 {
            println!("bench: 2 MiB pages are not offered");
            return;
        }
        let step = 2 << 20;
        for n in 0..(ROUNDS + 1) * LARGE_BYTES / step {
            let source = SOURCE + n * step % LARGE_BYTES;
            self.vm
                .ept()
                .set_entry(HUGE + n * step, 2, source | LARGE | WRITE_BACK | ALL);
        }
        let pages = LARGE_BYTES / PAGE;
        let code = Toucher::again(pages, 0, Kind::Read, layout::DATA);
        let pointer = self.start(code.bytes(), 0, 0);
        let warm = rounds(2, Handler::Skip, 3, pointer, 0) / 2;
        let code = Toucher::onward(pages, PAGE, Kind::Read);
        let pointer = self.start(code.bytes(), 0, HUGE);
        let ticks = rounds(ROUNDS, Handler::Skip, 3, pointer, HUGE + LARGE_BYTES) / ROUNDS;
        print("first-touch-64m-by-2m", ticks.saturating_sub(warm));
    }
}
