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

use rt::random::Random;
use rt::vmx::Vmx;
use rt::vmx::vm::Mode;
use rt::{Boot, apic, println};

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

/// What the command line asks for.
struct Choice {
    cases: u64,
    seed: u64,
    /// One case, shown in full.
    shown: Option<(u64, u64)>,
    /// No other case is run.
    alone: bool,
}

impl Choice {
    /// Err is the word that is none.
    fn read(boot: &Boot) -> Result<Self, &'static str> {
        let mut choice = Self {
            cases: CASES,
            seed: 1,
            shown: None,
            alone: false,
        };
        for word in boot.words() {
            let (name, value) = word.split_once('=').ok_or(word)?;
            let number = |text: &str| text.parse().map_err(|_| word);
            match name {
                "cases" => choice.cases = number(value)?,
                "seed" => choice.seed = number(value)?,
                "case" | "show" => {
                    let (base, case) = value.split_once('.').ok_or(word)?;
                    choice.shown = Some((number(base)?, number(case)?));
                    choice.alone = name == "case";
                }
                _ => return Err(word),
            }
        }
        Ok(choice)
    }
}

fn main(boot: &Boot) {
    let choice = match Choice::read(boot) {
        Ok(choice) => choice,
        Err(word) => {
            println!("fuzz: unknown word '{word}'; give cases=N, seed=N, case=BASE.N, show=BASE.N");
            return;
        }
    };
    let Some(vmx) = Vmx::start("fuzz") else {
        return;
    };
    apic::enable();
    let mut world = World::new(&vmx);
    let (mut cases, mut exits) = (0, 0);
    let mut reasons = [0u32; 80];
    for (base, (mode, with_ept)) in (0..).zip(BASES) {
        if !world.vm.can(mode, with_ept) {
            continue;
        }
        for case in 0..choice.cases {
            let shows = choice.shown == Some((base, case));
            if choice.alone && !shows {
                continue;
            }
            let mut watch = Watch::new(shows);
            let seed = choice.seed << 40 ^ base << 32 ^ case;
            let mut random = Random::new((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            world.make(mode, with_ept, &mut random);
            if shows {
                host::show_setup(&world);
            }
            let last = host::run(&mut world, &mut random, &mut watch, &mut reasons);
            let ept = if with_ept { "ept" } else { "no-ept" };
            println!(
                "{base}.{case} {} {ept} {} {last} {:016x}",
                mode.name(),
                watch.exits,
                watch.hash()
            );
            cases += 1;
            exits += watch.exits;
        }
    }
    rt::print!("exits by reason:");
    for (reason, count) in reasons.iter().enumerate().filter(|(_, count)| **count != 0) {
        rt::print!(" {reason}:{count}");
    }
    println!();
    println!("fuzz: {cases} cases, {exits} exits");
}
