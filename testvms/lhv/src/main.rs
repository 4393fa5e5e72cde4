//! lhv: a small L1 hypervisor that prints what VMX does to it.
//!
//! See `README.md` beside this crate for what it covers and what the words of its command line are.
#![no_std]
#![no_main]

mod basic;
mod capabilities;
mod control_registers;
mod ept;
mod errors;
mod events;
mod exceptions;
mod invalidation;
mod io;
mod late;
mod lists;
mod modes;
mod msr;
mod regions;
mod shadowing;
mod steps;
mod switches;
mod tester;
mod through;
mod timers;
mod timing;
mod user;
mod virtual_apic;

use rt::vmx::vm::Mode;
use rt::vmx::{Vmx, insn};
use rt::{Boot, println};
use tester::Tester;

rt::entry!(main);

/// A family of tests: its word on the command line and what it runs in each mode.
type Family = (&'static str, fn(&mut Tester));

/// Families that run once for each mode, with and without EPT.
const BY_MODE: [Family; 7] = [
    ("basic", basic::run),
    ("io", io::run),
    ("msr", msr::run),
    ("cr", control_registers::run),
    ("exceptions", exceptions::run),
    ("events", events::run),
    ("ept", ept::run),
];

/// Families that choose their modes themselves and run once with and once without EPT.
const ONCE: [Family; 15] = [
    ("timing", timing::run),
    ("apic", virtual_apic::run),
    ("late", late::run),
    ("lists", lists::run),
    ("errors", errors::run),
    ("invalidation", invalidation::run),
    ("capabilities", capabilities::run),
    ("through", through::run),
    ("regions", regions::run),
    ("switches", switches::run),
    ("user", user::run),
    ("modes", modes::run),
    ("timers", timers::run),
    ("steps", steps::run),
    ("shadowing", shadowing::run),
];

/// The family that runs last, and once: the mode that it enters stays.
const X2APIC: &str = "x2apic";

const MODES: [Mode; 7] = [
    Mode::Long,
    Mode::Compat,
    Mode::Prot32,
    Mode::Pae,
    Mode::Flat32,
    Mode::Real,
    Mode::V86,
];

/// What the command line asks for.
struct Choice {
    with_ept: bool,
    without_ept: bool,
    boot: rt::cmdline::Words,
}

impl Choice {
    fn read(boot: &Boot) -> Result<Self, &'static str> {
        let mut choice = Self {
            with_ept: true,
            without_ept: true,
            boot: boot.words(),
        };
        for word in boot.words() {
            match word {
                "ept=on" => choice.without_ept = false,
                "ept=off" => choice.with_ept = false,
                _ if is_family(word) || is_mode(word) => {}
                _ => return Err(word),
            }
        }
        Ok(choice)
    }

    /// Whether a family or mode runs: all do unless one of its kind is named.
    fn has(&self, name: &str, is_kind: fn(&str) -> bool) -> bool {
        let mut named = self.boot.clone().filter(|word| is_kind(word)).peekable();
        named.peek().is_none() || named.any(|word| word == name)
    }
}

fn is_family(word: &str) -> bool {
    word == X2APIC || BY_MODE.iter().chain(&ONCE).any(|(name, _)| *name == word)
}

fn is_mode(word: &str) -> bool {
    MODES.iter().any(|mode| mode.name() == word)
}

fn main(boot: &Boot) {
    let choice = match Choice::read(boot) {
        Ok(choice) => choice,
        Err(word) => {
            println!("lhv: unknown word '{word}'; give ept=on, ept=off, families or modes");
            return;
        }
    };
    let Some(vmx) = Vmx::start("lhv") else {
        return;
    };
    println!("lhv: in VMX operation");
    let mut tester = Tester::new(vmx);
    for with_ept in [true, false] {
        let is_asked = if with_ept {
            choice.with_ept
        } else {
            choice.without_ept
        };
        if !is_asked || !tester.vm.can(Mode::Long, with_ept) {
            continue;
        }
        for mode in MODES {
            if choice.has(mode.name(), is_mode) && tester.vm.can(mode, with_ept) {
                run(&mut tester, &choice, &BY_MODE, mode, with_ept);
            }
        }
        run(&mut tester, &choice, &ONCE, Mode::Long, with_ept);
    }
    if choice.has(X2APIC, is_family) {
        tester.begin(X2APIC, Mode::Long, false);
        through::x2apic(&mut tester);
    }
    tester.title("end");
    match insn::vmxoff() {
        Ok(()) => println!("VMXOFF: VMsucceed"),
        Err(error) => println!("VMXOFF: {error}"),
    }
    let after = insn::vmptrst();
    tester.check(
        "VMPTRST after VMXOFF is #UD",
        errors::is_fault(after.map(drop), 6),
    );
    println!("lhv: {} checks, {} wrong", tester.checks, tester.wrong);
}

fn run(tester: &mut Tester, choice: &Choice, families: &[Family], mode: Mode, with_ept: bool) {
    for (name, family) in families {
        if choice.has(name, is_family) {
            tester.begin(name, mode, with_ept);
            family(tester);
        }
    }
}
