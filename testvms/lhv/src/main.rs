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

use rt::lab::{Choice, Kinds, Stop, names};
use rt::vmx::insn::Shown;
use rt::vmx::vm::Mode;
use rt::vmx::{Vmx, insn};
use rt::{Boot, case, report};
use tester::Tester;

rt::entry!(main);

/// When a family runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Once for each mode, with and without EPT.
    ByMode,
    /// Once with and once without EPT; it chooses its modes itself.
    Once,
    /// Once, after all others: the mode that it enters stays.
    Last,
}
use When::{ByMode, Last, Once};

/// A family: its word on the command line, when it runs, and what runs it.
type Family = (&'static str, (When, fn(&mut Tester)));

const FAMILIES: [Family; 23] = [
    ("basic", (ByMode, basic::run)),
    ("io", (ByMode, io::run)),
    ("msr", (ByMode, msr::run)),
    ("cr", (ByMode, control_registers::run)),
    ("exceptions", (ByMode, exceptions::run)),
    ("events", (ByMode, events::run)),
    ("ept", (ByMode, ept::run)),
    ("timing", (Once, timing::run)),
    ("apic", (Once, virtual_apic::run)),
    ("late", (Once, late::run)),
    ("lists", (Once, lists::run)),
    ("errors", (Once, errors::run)),
    ("invalidation", (Once, invalidation::run)),
    ("capabilities", (Once, capabilities::run)),
    ("through", (Once, through::run)),
    ("regions", (Once, regions::run)),
    ("switches", (Once, switches::run)),
    ("user", (Once, user::run)),
    ("modes", (Once, modes::run)),
    ("timers", (Once, timers::run)),
    ("steps", (Once, steps::run)),
    ("shadowing", (Once, shadowing::run)),
    ("x2apic", (Last, through::x2apic)),
];

const WORDS: Kinds = &[&names(&FAMILIES), &Mode::NAMES, &["ept=on", "ept=off"]];

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let vmx = Vmx::prepare()?;
    vmx.enter()?;
    let mut tester = Tester::new(vmx);
    for (word, with_ept) in [("ept=on", true), ("ept=off", false)] {
        if !choice.has(word) || !tester.vm.can(Mode::Long, with_ept) {
            continue;
        }
        for mode in Mode::ALL {
            if choice.has(mode.name()) && tester.vm.can(mode, with_ept) {
                run(&mut tester, &choice, ByMode, mode, with_ept);
            }
        }
        run(&mut tester, &choice, Once, Mode::Long, with_ept);
    }
    run(&mut tester, &choice, Last, Mode::Long, false);
    report::group(format_args!("end"));
    case!("VMXOFF: {}", Shown(insn::vmxoff()));
    let after = insn::vmptrst();
    tester.check(
        "VMPTRST after VMXOFF is #UD",
        errors::is_fault(after.map(drop), 6),
    );
    Ok(())
}

fn run(tester: &mut Tester, choice: &Choice<'_>, now: When, mode: Mode, with_ept: bool) {
    for (name, (when, family)) in FAMILIES {
        if when == now && choice.has(name) {
            tester.begin(name, mode, with_ept);
            family(tester);
        }
    }
}
