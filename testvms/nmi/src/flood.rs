//! Many NMIs, at every place that can be hit: each is awaited before the next is sent, so that each
//! must be counted, once.

use rt::cpu::{self, inb, outb};
use rt::vmx::Outcome;
use rt::vmx::insn;
use rt::{case, report};
use umbra_vmcs::field;

use crate::apic;
use crate::code::{self, piece};
use crate::l1;
use crate::lab::{Lab, POLICIES, Policy};

/// NMIs by command, for each place.
const COMMANDED: u32 = 250;
/// NMIs by the interval timer, for each place.
const TIMED: u32 = 150;
/// Looks at a count before an NMI is given up as lost.
const PATIENCE: u32 = 20_000;

/// A place: its name, and what L1 does there, over and over.
type Place = (&'static str, fn(&mut Lab));

const PLACES: [Place; 8] = [
    ("CPUID", |_| {
        cpu::cpuid(0, 0);
    }),
    ("VMREAD", |_| {
        insn::read(field::GUEST_RIP);
    }),
    ("VMWRITE", |_| insn::write(field::GUEST_RSP, 0xb000)),
    ("VMPTRST", |_| {
        let _ = insn::vmptrst();
    }),
    ("port", |_| {
        outb(0x80, 0);
        inb(0x61);
    }),
    ("MSR", |_| {
        cpu::rdmsr(0x1b);
    }),
    ("VMPTRLD", |lab| {
        let _ = insn::vmptrld(&lab.vm.vmcs.address());
    }),
    ("VMRESUME", |lab| lab.visit()),
];

/// Runs them all.
pub fn run(lab: &mut Lab) {
    l1::set_quiet(true);
    for policy in POLICIES {
        lab.set_up(policy, piece::calls);
        lab.set_handler(2, &code::COUNTING);
        for (name, place) in PLACES {
            // Only VMRESUME knows the policies apart.
            if policy != Policy::Direct && name != "VMRESUME" {
                continue;
            }
            let got = commanded(lab, place);
            lab.tally(policy, name, "commanded", COMMANDED, got);
            let got = timed(lab, place);
            lab.tally(policy, name, "timed", TIMED, got);
        }
    }
    l1::set_quiet(false);
    apic::stop_timer();
}

/// Sends each right before the place.
fn commanded(lab: &mut Lab, place: fn(&mut Lab)) -> u32 {
    let before = lab.total();
    for n in 1..=COMMANDED {
        apic::send_nmi();
        place(lab);
        for _ in 0..PATIENCE {
            if lab.total() - before >= n {
                break;
            }
        }
    }
    // One too many would come now.
    place(lab);
    lab.total() - before
}

/// Has the timer send each while L1 does the same thing over and over.
fn timed(lab: &mut Lab, place: fn(&mut Lab)) -> u32 {
    let before = lab.total();
    for n in 1..=TIMED {
        // The delay grows by ticks, and the loop by single instructions against it.
        apic::start_timer(5 + (n % 50) as u16 * 7);
        for _ in 0..n % 97 {
            core::hint::spin_loop();
        }
        for _ in 0..PATIENCE {
            place(lab);
            if lab.total() - before >= n {
                break;
            }
        }
    }
    place(lab);
    lab.total() - before
}

impl Lab {
    /// NMIs that anyone has seen since L2 was set up: L1's handler, exits, L2's handler.
    fn total(&self) -> u32 {
        l1::nmis() + self.flood_exits + self.vm.memory.read::<u32>(code::COUNTER)
    }

    /// Enters L2, which calls again soon.
    fn visit(&mut self) {
        match self.vm.run() {
            Outcome::Exit(exit) if exit.basic() == 0 => {
                self.flood_exits += 1;
                rt::trap::unblock_nmis();
            }
            Outcome::Exit(exit) if exit.basic() == 18 => self.vm.skip(&exit),
            other => panic!("the flood's L2: {other}"),
        }
    }

    fn tally(&self, policy: Policy, place: &str, kind: &str, sent: u32, got: u32) {
        let policy = policy.name();
        case!("flood {policy}, {place}, {kind}: sent={sent} got={got}");
        report::equal(format_args!("NMIs of the flood"), got, sent);
    }
}
