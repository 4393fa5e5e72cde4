//! `./x fuzz`: random L2 programs, seed after seed, under Umbra and on the bare machine.
//!
//! The test VM `fuzz` draws them; its README says what. A seed gives the same cases each time,
//! so that what is printed of a difference is enough to see it again.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::cli::FuzzArgs;
use crate::test::{difference, run_once};
use crate::ui::Step;
use crate::{fail, serial};

/// The guest.
const GUEST: &str = "fuzz";
/// How many bases of a mode, with EPT or without, a seed has its cases on.
const BASES: u64 = 12;
/// Seeds are of so many bits where nobody gives one: short enough to be typed.
const SEED_BITS: u32 = 24;

/// `./x fuzz`.
///
/// # Errors
/// A run that fails by itself, or a case that differs.
pub fn fuzz(args: &FuzzArgs) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut seed = args.seed.unwrap_or_else(seed_of_now);
    let mut passed = 0;
    loop {
        let step = Step::start(format!("seed {seed}"));
        let words = vec![format!("cases={}", args.cases), format!("seed={seed}")];
        let bare = lines(args, &words, false)?;
        let under = lines(args, &words, true)?;
        step.done();
        let report = difference(&bare, &under);
        if !report.is_empty() {
            print_failure(args, seed, &bare, &under, &report)?;
            println!("{passed} passed, 1 failed");
            bail!("seed {seed} differs");
        }
        passed += 1;
        if Instant::now() >= end {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    println!(
        "{} cases, the last seed was {seed}",
        passed * BASES * args.cases
    );
    println!("{passed} passed, 0 failed");
    Ok(())
}

fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(1, |since| since.as_nanos() as u64);
    nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SEED_BITS)
}

/// What the guest prints for these words of its command line.
fn lines(args: &FuzzArgs, words: &[String], is_under_umbra: bool) -> Result<Vec<String>> {
    let mut all = vec![
        GUEST.to_owned(),
        format!("--append={}", words.join(" ")),
        format!("--cpu-model={}", args.cpu_model),
        "--timeout=86400".to_owned(),
    ];
    let name = match is_under_umbra {
        true => {
            all.push(format!("--depth={}", args.depth));
            "fuzz-umbra"
        }
        false => {
            all.push("--native".to_owned());
            "fuzz-bare"
        }
    };
    let ran = run_once(name, &all)?;
    let printed = serial::guest_lines(&ran.serial);
    if !is_under_umbra && ran.status != Some(0) {
        let last = ran.stderr.last().map_or("", String::as_str);
        if ran.status == Some(i32::from(fail::USAGE)) {
            return Err(fail::usage(last.strip_prefix("x: ").unwrap_or(last)));
        }
        bail!("the bare machine did not come to the end: {last}");
    }
    Ok(printed)
}

/// Tells of a seed that differs, by its first case alone where that is enough.
fn print_failure(
    args: &FuzzArgs,
    seed: u64,
    bare: &[String],
    under: &[String],
    report: &[String],
) -> Result<()> {
    println!("seed {seed}, {} cases on each base:", args.cases);
    for line in report {
        println!("  {line}");
    }
    let Some(case) = first_case(bare, under) else {
        println!("  no case differs: the machine stopped, or told something of its own");
        return Ok(());
    };
    let words = [format!("case={case}"), format!("seed={seed}")];
    let alone = difference(&lines(args, &words, false)?, &lines(args, &words, true)?);
    let append = words.join(" ");
    match alone.is_empty() {
        true => println!("  case {case} alone does not differ: it needs those before it"),
        false => {
            println!("  case {case} alone differs as well; ./x run fuzz --append '{append}':");
            for line in alone {
                println!("    {line}");
            }
        }
    }
    Ok(())
}

/// The first case whose line is another on the two machines: `BASE.CASE`.
fn first_case<'a>(bare: &'a [String], under: &[String]) -> Option<&'a str> {
    let at = bare
        .iter()
        .zip(under)
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| bare.len().min(under.len()));
    let name = bare.get(at)?.split_whitespace().next()?;
    let (base, case) = name.split_once('.')?;
    let are_numbers = [base, case].iter().all(|n| n.parse::<u64>().is_ok());
    are_numbers.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_that_differs_is_named() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let bare = lines("fuzz: 2\n0.0 long ept: 3 10 aa\n0.1 long: 1 12 bb\nfuzz: end");
        let mut under = bare.clone();
        assert_eq!(first_case(&bare, &under), None);
        under[2] = "0.1 long: 1 12 cc".to_owned();
        assert_eq!(first_case(&bare, &under), Some("0.1"));
        // The run under Umbra ends early.
        assert_eq!(first_case(&bare, &bare[..1]), Some("0.0"));
        under[0] = "fuzz: 3".to_owned();
        assert_eq!(first_case(&bare, &under), None);
    }

    #[test]
    fn a_seed_can_be_typed() {
        assert!(seed_of_now() < 1 << SEED_BITS);
    }
}
