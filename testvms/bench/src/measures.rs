//! What is measured on one CPU.

use rt::vmx::ept::{ALL, LARGE, WRITE_BACK};
use rt::vmx::vm::layout;
use rt::{println, report};
use umbra_vmcs::controls::Proc2;

use crate::instructions::{self, ROW};
use crate::rounds::{Handler, Leaves, MOST_TURNS, Ring, maps, rounds, turns};
use crate::toucher::{Kind, Toucher};
use crate::{Bench, print};

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
/// Below 4 GiB, since L2's code names it.
const MANY: u64 = 0xf000_0000;
const UNMAPPED: u64 = 5 << 30;
const HUGE: u64 = 8 << 30;
/// L1's memory that L2 touches, 64 MiB of it: behind this program, and used by nothing.
const SOURCE: u64 = 64 << 20;
/// EPT pointer: accessed and dirty flags on.
const FLAGS_ON: u64 = 1 << 6;
/// CPUID, and back to it.
pub const CPUID: [u8; 4] = [0x0f, 0xa2, 0xeb, 0xfc];

/// Prints what one instruction of a row costs, once everything is warm.
fn row(name: &str, ticks: impl Fn() -> u64) {
    let _ = ticks();
    print(name, ticks() / ROW);
}

impl Bench {
    /// The bare round trip, and one as a hypervisor makes it.
    pub fn exit(&mut self) {
        let pointer = self.start(&CPUID, 0, 0);
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

    /// Instructions of L1.
    pub fn instructions(&mut self) {
        let pointer = self.start(&[0x0f, 0xa2], 0, 0);
        row("vmread", instructions::vmread);
        row("vmread-rare", instructions::vmread_rare);
        row("vmwrite", instructions::vmwrite);
        row("vmwrite-rare", instructions::vmwrite_rare);
        row("cpuid", instructions::cpuid);
        row("invept", || instructions::invept(pointer));
        if self.vmx.caps.offers_proc2(Proc2::ENABLE_VPID) {
            row("invvpid", || instructions::invvpid(1));
        }
        let (first, second) = (self.vm.vmcs, self.vmx.new_vmcs());
        instructions::prepare(second);
        row("vmptrld", || instructions::vmptrld(first, second));
        // What L2's run left in the CPU goes back to memory first; then it shows that L1 does
        // not use the VMCS between the two.
        for _ in 0..2 {
            let _ = instructions::clear_and_load(first);
        }
        let (clear, load) = instructions::clear_and_load(first);
        print("vmclear-current", clear);
        print("vmptrld-cleared", load);
    }

    /// A round trip with another of N VMCSs each time.
    pub fn turns(&mut self) {
        let own = self.vm.vmcs;
        let mut vmcss = [own; MOST_TURNS];
        for vmcs in &mut vmcss[1..] {
            *vmcs = self.vmx.new_vmcs();
        }
        for count in [1, 2, 4, 8, 9, 16, 32, 64] {
            let _ = self.start(&CPUID, 0, 0);
            for vmcs in &vmcss[1..count] {
                self.vm.vmcs = *vmcs;
                self.vm.reset_vmcs();
                let _ = self.enter_first(&CPUID, 0, 0);
            }
            self.vm.vmcs = own;
            let mut ring = Ring::new();
            ring.of(&vmcss[..count]);
            let times = 2 * count as u64;
            let _ = turns(times, &ring);
            let ticks = turns(times, &ring) / times;
            println!("bench: vmcs12s-{count} ticks={ticks}");
        }
    }

    /// L2 touches a page that ept12 lacks, and L1 maps it.
    pub fn violation(&mut self) {
        // mov eax, [rdi]; add rdi, 4096; jmp back
        let code = [0x8b, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0, 0, 0xeb, 0xf5];
        let leaves = Leaves::new(UNMAPPED, |n| {
            let leaf = self.vm.ept().entry_address(UNMAPPED + n * PAGE, 1);
            (leaf, (SOURCE + n * PAGE) | WRITE_BACK | ALL)
        });
        let _ = self.start(&code, 0, UNMAPPED);
        let _ = maps(2, &leaves, UNMAPPED);
        let next = UNMAPPED + 2 * PAGE;
        let leaves = Leaves::new(next, |n| {
            let page = n + 2;
            let leaf = self.vm.ept().entry_address(UNMAPPED + page * PAGE, 1);
            (leaf, (SOURCE + page * PAGE) | WRITE_BACK | ALL)
        });
        let ticks = maps(ROUNDS, &leaves, next) / ROUNDS;
        print("ept-violation", ticks);
    }

    /// L2 reads N pages, all of which L1 has just invalidated: ticks a page, beside those of the exit.
    pub fn pages(&mut self) {
        const MOST: u64 = 4096;
        const TIMES: u64 = 4;
        for n in 0..MOST {
            self.vm.ept().map(MANY + n * PAGE, SOURCE + n * PAGE, ALL);
        }
        let pointer = self.start(&CPUID, 0, 0);
        let _ = rounds(4, Handler::SkipAndInvept, 2, pointer, 0);
        let exits = rounds(TIMES, Handler::SkipAndInvept, 2, pointer, 0) / TIMES;
        for count in [16, 64, 256, 1024, MOST] {
            let code = Toucher::again(count, PAGE, Kind::Read, MANY);
            let pointer = self.start(code.bytes(), 0, 0);
            let _ = rounds(2, Handler::SkipAndInvept, 3, pointer, 0);
            let ticks = rounds(TIMES, Handler::SkipAndInvept, 3, pointer, 0) / TIMES;
            println!(
                "bench: pages-{count} ticks={}",
                ticks.saturating_sub(exits) / count
            );
        }
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
    pub fn first_touch(&mut self) {
        self.map(NEAR, PAGE, ALL);
        self.touch("first-touch-4k", NEAR, PAGE, 0, Kind::Read);
    }

    /// Pages 64 KiB from one another.
    pub fn apart(&mut self) {
        self.map(APART, 16 * PAGE, ALL);
        self.touch("first-touch-4k-apart", APART, 16 * PAGE, 0, Kind::Read);
    }

    /// Pages side by side with accessed and dirty flags on: none set, as KVM sets them, a first write.
    pub fn flags(&mut self) {
        if self.vmx.caps.ept_vpid & 1 << 21 == 0 {
            report::lacks(format_args!("accessed and dirty flags"));
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
    pub fn invept(&mut self) {
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
    pub fn large(&mut self) {
        if self.vmx.caps.ept_vpid & 1 << 16 == 0 {
            report::lacks(format_args!("2 MiB pages"));
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
