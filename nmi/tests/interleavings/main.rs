//! Every placement of one, two and three NMIs at every step of the entry,
//! exit and handler paths, against a bare CPU.
//!
//! For each run over L0 there must be a run of the bare machine with the same
//! observable trace (instructions, deliveries, exits with the blocking that L1
//! reads) and the same number of NMIs still waiting at its end, in which each
//! NMI arrives at the same place or at most [`LATEST`] observable events later
//! (the time that L0 takes is nothing on the bare machine). So none is lost,
//! doubled or delivered while blocked, except where the bare CPU does the same.
//!
//! And since the bare CPU loses an NMI only to one that waits already, so may
//! L0: an NMI that arrives after the one before it was delivered is delivered.

mod bare;
mod full;
mod hw;
mod scenario;

use std::collections::HashMap;

use bare::Bare;
use full::{Full, Mistake};
use hw::{Inject, Level, Log, Quirks, Reason};
use scenario::{Machine, Scenario, Status};

/// How much later, in observable events, an NMI may arrive on the bare CPU.
const LATEST: usize = 2;
/// Ticks after which a run is taken to hang.
const ENOUGH: usize = 2000;

type Places = Vec<usize>;

/// Runs `machine` with `left` more NMIs at every place from here on.
fn explore<M: Machine>(
    machine: &M,
    left: usize,
    places: &Places,
    ticks: usize,
    end: &mut impl FnMut(&M, &Places) -> Result<(), String>,
) -> Result<(), String> {
    let mut machine = machine.clone();
    for ticks in ticks.. {
        if ticks > ENOUGH {
            return Err(format!(
                "hangs with NMIs at {places:?}: {:?}",
                machine.log()
            ));
        }
        if left > 0 {
            let mut hit = machine.clone();
            hit.arrive();
            let mut places = places.clone();
            places.push(machine.log().len());
            explore(&hit, left - 1, &places, ticks, end)?;
        }
        let status = machine
            .tick()
            .map_err(|why| format!("{why}, NMIs at {places:?}: {:?}", machine.log()))?;
        if status != Status::Runs {
            break;
        }
    }
    if left == 0 {
        end(&machine, places)?;
    }
    Ok(())
}

/// NMIs that reached somebody. The one that L1 injects into L2 is none of ours;
/// it is the first that L2 gets.
fn deliveries(scenario: &Scenario, log: &[Log]) -> usize {
    let mut injected = scenario.inject == Inject::Nmi;
    log.iter()
        .filter(|l| match l {
            Log::Nmi(Level::L2) if injected => {
                injected = false;
                false
            }
            l => matches!(l, Log::Nmi(_) | Log::Exit(Reason::Nmi, ..)),
        })
        .count()
}

/// The traces of the bare machine, each with the places that lead to it. The
/// flag says that an NMI still waits at the end.
type Truth = HashMap<(Vec<Log>, bool), Vec<Places>>;

/// The SDM lets a CPU hold an NMI back after STI or not, at its pleasure; a CPU
/// that does not may be stood in for by one that does.
fn truth(scenario: &Scenario, quirks: Quirks, nmis: usize) -> Truth {
    let holds = Quirks {
        sti_holds_nmi: true,
        ..quirks
    };
    let mut truth = Truth::default();
    for quirks in [quirks, holds] {
        let bare = Bare::new(scenario, quirks);
        explore(&bare, nmis, &Vec::new(), 0, &mut |m, places| {
            let trace = (m.log().to_vec(), m.holds_one());
            truth.entry(trace).or_default().push(places.clone());
            Ok(())
        })
        .unwrap_or_else(|why| panic!("{}: the bare machine: {why}", scenario.name));
    }
    truth
}

/// How many NMIs must have been delivered or wait at the end: the first, and
/// each that arrived when the one before had been delivered.
fn least(scenario: &Scenario, log: &[Log], places: &Places) -> usize {
    let delivered_at = |place: &usize| deliveries(scenario, &log[..*place]);
    let fresh = places
        .windows(2)
        .filter(|pair| delivered_at(&pair[1]) > delivered_at(&pair[0]));
    places.len().min(1) + fresh.count()
}

/// Compares every run over L0; returns how many there were.
fn compare(
    scenario: &Scenario,
    quirks: Quirks,
    nmis: usize,
    mistake: Mistake,
) -> Result<u64, String> {
    let truth = truth(scenario, quirks, nmis);
    let mut runs = 0;
    explore(
        &Full::new(scenario, quirks, mistake),
        nmis,
        &Vec::new(),
        0,
        &mut |m, places| {
            runs += 1;
            let holds = m.holds_one();
            let trace = (m.log().to_vec(), holds);
            let fits = |bare: &Places| {
                places
                    .iter()
                    .zip(bare)
                    .all(|(p, b)| (*p..=p + LATEST).contains(b))
            };
            let same = truth.get(&trace);
            let kept = deliveries(scenario, m.log()) + usize::from(holds);
            if !same.is_some_and(|all| all.iter().any(fits)) {
                Err(format!(
                    "no bare run like it; NMIs at {places:?}, bare with this trace {same:?}, \
                     holds {holds}: {:?}",
                    trace.0
                ))
            } else if kept < least(scenario, m.log(), places) {
                Err(format!(
                    "keeps only {kept}; NMIs at {places:?}: {:?}",
                    trace.0
                ))
            } else {
                Ok(())
            }
        },
    )?;
    Ok(runs)
}

const CPUS: [Quirks; 3] = [
    // A CPU by the letter of the SDM, which leaves blocking after injection
    // to the field.
    Quirks {
        injection_blocks: false,
        sti_holds_nmi: false,
        sti_refuses_injection: false,
    },
    // One that blocks on injection, as emulators do.
    Quirks {
        injection_blocks: true,
        sti_holds_nmi: true,
        sti_refuses_injection: false,
    },
    Quirks {
        injection_blocks: false,
        sti_holds_nmi: true,
        sti_refuses_injection: true,
    },
];

fn search(scenarios: &[Scenario], nmis: usize, cpus: &[Quirks], mistake: Mistake) -> u64 {
    let mut runs = 0;
    for scenario in scenarios {
        for &quirks in cpus {
            runs += compare(scenario, quirks, nmis, mistake)
                .unwrap_or_else(|why| panic!("{}, {quirks:?}: {why}", scenario.name));
        }
    }
    println!(
        "{nmis} NMIs, {mistake:?}: {runs} runs of {} scenarios",
        scenarios.len()
    );
    runs
}

/// Every `stride`-th: the whole list with optimisation, a part without.
fn part(scenarios: Vec<Scenario>, stride: usize) -> Vec<Scenario> {
    let stride = if cfg!(debug_assertions) { stride } else { 1 };
    scenarios.into_iter().step_by(stride).collect()
}

#[test]
fn one_nmi() {
    let l1 = search(&scenario::of_l1(), 1, &CPUS, Mistake::None);
    let l2 = search(&scenario::of_l2(), 1, &CPUS, Mistake::None);
    assert!(l1 > 700 && l2 > 100_000, "the search has shrunk");
}

#[test]
fn two_nmis() {
    let l1 = search(&scenario::of_l1(), 2, &CPUS, Mistake::None);
    let l2 = search(&part(scenario::of_l2(), 11), 2, &CPUS, Mistake::None);
    assert!(l1 > 16_000 && l2 > 300_000, "the search has shrunk");
}

#[test]
fn three_nmis() {
    let l1 = search(&scenario::of_l1(), 3, &CPUS, Mistake::None);
    let l2: Vec<_> = scenario::of_l2().into_iter().step_by(41).collect();
    let l2 = search(&part(l2, 19), 3, &CPUS, Mistake::None);
    assert!(l1 > 300_000 && l2 > 10_000, "the search has shrunk");
}

/// All of it, with optimisation; long.
#[test]
#[ignore = "long: cargo test --release -p umbra-nmi everywhere -- --ignored --nocapture"]
fn three_nmis_everywhere() {
    search(&scenario::of_l2(), 3, &CPUS, Mistake::None);
}

/// With nothing in the way of the first, the second is kept as well: the CPU
/// latches it, since L0's handler does not execute IRET.
#[test]
fn the_second_nmi_is_not_merged() {
    let scenario = &scenario::of_l1()[0];
    let merges = |mistake| {
        let mut merges = 0;
        let machine = Full::new(scenario, CPUS[0], mistake);
        explore(&machine, 2, &Vec::new(), 0, &mut |m, _| {
            merges += m.merged;
            Ok(())
        })
        .expect("the scenario ends");
        merges
    };
    assert_eq!(merges(Mistake::None), 0);
    assert!(merges(Mistake::HandlerIret) > 0);
}

/// On CPUs that hold NMIs back after STI. On the others an NMI that L0 took
/// after its IRET waits one instruction longer than the window of [`LATEST`].
#[test]
fn iret_in_l0_loses_nothing() {
    for habit in Mistake::TOLERATED {
        search(&scenario::of_l1(), 2, &CPUS[1..], habit);
        search(&scenario::of_l2(), 1, &CPUS[1..], habit);
        search(&part(scenario::of_l2(), 23), 2, &CPUS[1..], habit);
    }
}

/// Each mistake is found by the search: the search can fail.
#[test]
fn mistakes_are_found() {
    let scenarios: Vec<_> = scenario::of_l1()
        .into_iter()
        .chain(scenario::of_l2())
        .collect();
    for mistake in Mistake::ALL {
        let found = (1..=2).find_map(|nmis| {
            scenarios.iter().find_map(|scenario| {
                CPUS.iter()
                    .find_map(|quirks| compare(scenario, *quirks, nmis, mistake).err())
                    .map(|why| (&scenario.name, why))
            })
        });
        match found {
            Some((name, why)) => println!("{mistake:?}: {name}: {why}"),
            None => panic!("{mistake:?} goes unnoticed"),
        }
    }
}
