//! fuzz: random L2 programs under random controls, exit by exit.
//!
//! See `README.md` beside this crate. The bare machine's transcript is the truth.
#![no_std]
#![no_main]

mod controls;
mod data;
mod flow;
mod host;
mod interrupts;
mod memory;
mod program;
mod slot;
mod state;
mod system;
mod watch;
mod world;

use rt::lab::{Choice, Kinds, Stop};
use rt::random::Random;
use rt::vmx::Vmx;
use rt::vmx::vm::{Base, Mode};
use rt::{Boot, apic, case, println};

use watch::Watch;
use world::World;

rt::entry!(main);

const BASES: [(Mode, bool); 12] = [
    (Mode::Long, true),
    (Mode::Long, false),
    (Mode::Compat, true),
    (Mode::Compat, false),
    (Mode::Prot32, true),
    (Mode::Prot32, false),
    (Mode::Pae, true),
    (Mode::Pae, false),
    (Mode::Flat32, true),
    (Mode::Real, true),
    (Mode::V86, true),
    (Mode::V86, false),
];
/// Cases on each base unless the command line says otherwise.
const CASES: u64 = 150;

const WORDS: Kinds = &[&["cases=", "seed=", "case=", "show="]];

/// The case that a word like `case=BASE.N` names.
fn case_of(choice: &Choice<'_>, name: &str) -> Result<Option<(u64, u64)>, Stop> {
    let Some(word) = choice.word(name) else {
        return Ok(None);
    };
    let parts = word[name.len()..].split_once('.');
    let case = parts.and_then(|(base, case)| Some((base.parse().ok()?, case.parse().ok()?)));
    case.map(Some).ok_or(Stop::Value(word, "BASE.N"))
}

fn main(boot: &Boot) -> Result<(), Stop> {
    let choice = Choice::read(boot, WORDS)?;
    let cases_on_each = choice.number("cases=")?.unwrap_or(CASES);
    let run_seed: u64 = choice.number("seed=")?.unwrap_or(1);
    let alone = case_of(&choice, "case=")?;
    let shown = alone.or(case_of(&choice, "show=")?);
    let vmx = Vmx::prepare()?;
    vmx.enter()?;
    apic::enable();
    let mut world = World::new(&vmx);
    let mut exits = 0;
    let mut reasons = [0u32; 80];
    for (base, (mode, with_ept)) in (0..).zip(BASES) {
        if !world.vm.can(mode, with_ept) {
            continue;
        }
        for case in 0..cases_on_each {
            let shows = shown == Some((base, case));
            if alone.is_some() && !shows {
                continue;
            }
            let mut watch = Watch::new(shows);
            let seed = run_seed << 40 ^ base << 32 ^ case;
            let mut random = Random::new((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            world.make(mode, with_ept, &mut random);
            if shows {
                host::show_setup(&world);
            }
            let last = host::run(&mut world, &mut random, &mut watch, &mut reasons);
            case!(
                "{base}.{case} {}: {} {last} {:016x}",
                Base(mode, with_ept),
                watch.exits,
                watch.hash()
            );
            exits += watch.exits;
        }
    }
    rt::print!("fuzz: {exits} exits, by reason");
    for (reason, count) in reasons.iter().enumerate().filter(|(_, count)| **count != 0) {
        rt::print!(" {reason}:{count}");
    }
    println!();
    Ok(())
}
