//! The machine tests as `xtask/tests.toml` declares them.

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::Deserialize;

use crate::ticks::Ticks;
use crate::{fail, images};

/// Where the declarations are, from the top of the checkout.
const FILE: &str = "xtask/tests.toml";
/// The time that a run may take where its declaration names none. What limits
/// a run is its ticks; the time is for a machine that does not even tick.
const TIMEOUT_SECS: u64 = 3600;

/// One machine test.
#[derive(Debug)]
pub struct Test {
    /// Its name, which no other test has.
    pub name: String,
    /// The group it belongs to.
    pub group: String,
    /// What `./x run` boots.
    pub guest: String,
    /// The options of `./x run`, other than how deep.
    pub options: Vec<String>,
    /// Further ones of a run that has an Umbra.
    pub options_of_umbra: Vec<String>,
    /// Whether it takes so long that only a filter makes it run.
    pub only_by_name: bool,
    /// What is expected.
    pub expect: Expect,
    /// What the guest must have printed: each matches some line.
    pub lines: Vec<Regex>,
    /// What the figures that it prints are compared with.
    pub bench: Option<Bench>,
}

/// A column of the committed table of `./x bench`, and the run whose rows count.
#[derive(Clone, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// The run's name.
    pub run: String,
    /// The column's name.
    pub column: String,
}

impl Test {
    /// Whether nothing is run, because `./x run` has to refuse it.
    pub fn is_refused(&self) -> bool {
        matches!(
            self.expect,
            Expect::Ends {
                status: fail::USAGE,
                ..
            }
        )
    }

    /// Whether Umbra is part of what is run.
    pub fn needs_umbra(&self) -> bool {
        !self.is_refused() && !self.options.iter().any(|option| option == "--native")
    }
}

/// What a test expects of its run.
#[derive(Debug)]
pub enum Expect {
    /// The guest prints under this many Umbras what it prints on the bare
    /// machine.
    SameAsBare {
        /// How many Umbras.
        depth: u32,
    },
    /// One run ends like this.
    Ends {
        /// With this exit status.
        status: u8,
        /// With a last line on stderr that this matches.
        last_line: Option<Regex>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    test: Vec<Declaration>,
}

/// A declaration; it stands for several tests where it names several depths
/// or CPU models.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    name: String,
    group: String,
    guest: String,
    append: Option<String>,
    #[serde(default)]
    modules: Vec<String>,
    cpus: Option<u32>,
    mem: Option<u32>,
    #[serde(default)]
    cpu_models: Vec<String>,
    /// What the CPU lacks: one test each.
    #[serde(default)]
    lacking: Vec<String>,
    umbra: Option<String>,
    hypapp: Option<String>,
    #[serde(default)]
    only_by_name: bool,
    ticks: Option<Ticks>,
    timeout: Option<u64>,
    until: Option<String>,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    lines: Vec<String>,
    /// The depths whose transcripts must be those of the bare machine.
    #[serde(default)]
    same_at_depths: Vec<u32>,
    status: Option<u8>,
    last_line: Option<String>,
    bench: Option<Bench>,
}

/// Reads the declarations.
///
/// # Errors
/// The file is not there or makes no sense; the message says where.
pub fn read() -> Result<Vec<Test>> {
    let path = images::checkout().join(FILE);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{FILE} makes no sense"))
}

fn parse(text: &str) -> Result<Vec<Test>> {
    let file: File = toml::from_str(text)?;
    let mut tests: Vec<Test> = Vec::new();
    for declaration in &file.test {
        for test in declaration
            .tests()
            .with_context(|| format!("test {}", declaration.name))?
        {
            if tests.iter().any(|other| other.name == test.name) {
                bail!("two tests are called {}", test.name);
            }
            tests.push(test);
        }
    }
    Ok(tests)
}

impl Declaration {
    fn tests(&self) -> Result<Vec<Test>> {
        let ends = self.status.is_some() || self.last_line.is_some();
        if ends && !self.same_at_depths.is_empty() {
            bail!("same_at_depths goes with neither status nor last_line");
        }
        if self.bench.is_some() && !self.same_at_depths.is_empty() {
            bail!("bench compares with the table, same_at_depths with the bare machine");
        }
        if self.same_at_depths.contains(&0) {
            bail!("same_at_depths counts Umbras, so 0 is no depth to compare");
        }
        let models: Vec<Option<&str>> = if self.cpu_models.is_empty() {
            vec![None]
        } else {
            self.cpu_models.iter().map(|m| Some(m.as_str())).collect()
        };
        if !self.lacking.is_empty() {
            return self
                .lacking
                .iter()
                .map(|lack| self.lacking_test(models[0], lack))
                .collect();
        }
        let mut tests = Vec::new();
        for model in &models {
            let mut name = self.name.clone();
            // One model is part of what is tested, several are what is varied.
            if let (Some(model), true) = (model, models.len() > 1) {
                name.push_str(&format!("@{model}"));
            }
            if self.same_at_depths.is_empty() {
                tests.push(self.test(name, *model, self.ends()?)?);
            } else {
                for &depth in &self.same_at_depths {
                    let name = format!("{name}/depth{depth}");
                    tests.push(self.test(name, *model, Expect::SameAsBare { depth })?);
                }
            }
        }
        Ok(tests)
    }

    fn ends(&self) -> Result<Expect> {
        Ok(Expect::Ends {
            status: self.status.unwrap_or(0),
            last_line: self.last_line.as_deref().map(Regex::new).transpose()?,
        })
    }

    fn lacking_test(&self, model: Option<&str>, lack: &str) -> Result<Test> {
        if !self.same_at_depths.is_empty() {
            bail!("same_at_depths compares with a bare machine, which lacks nothing");
        }
        let mut test = self.test(format!("{}@{lack}", self.name), model, self.ends()?)?;
        test.options.push(format!("--lacking={lack}"));
        Ok(test)
    }

    fn test(&self, name: String, cpu_model: Option<&str>, expect: Expect) -> Result<Test> {
        let mut options = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                options.push(format!("--{name}={value}"));
            }
        };
        option("append", self.append.clone());
        for module in &self.modules {
            option("module", Some(module.clone()));
        }
        option("cpus", self.cpus.map(|n| n.to_string()));
        option("mem", self.mem.map(|n| n.to_string()));
        option("cpu-model", cpu_model.map(str::to_owned));
        option("until", self.until.clone());
        option("ticks", self.ticks.map(|ticks| ticks.0.to_string()));
        let timeout = self.timeout.unwrap_or(TIMEOUT_SECS);
        option("timeout", Some(timeout.to_string()));
        if matches!(expect, Expect::Ends { .. }) {
            option("umbra", self.umbra.clone());
        }
        options.extend(self.options.iter().cloned());
        let hypapp = self.hypapp.iter();
        Ok(Test {
            options_of_umbra: hypapp.map(|name| format!("--hypapp={name}")).collect(),
            name,
            group: self.group.clone(),
            guest: self.guest.clone(),
            options,
            only_by_name: self.only_by_name,
            expect,
            bench: self.bench.clone(),
            lines: self
                .lines
                .iter()
                .map(|line| Regex::new(line).with_context(|| format!("lines: {line}")))
                .collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_and_models_multiply() {
        let tests = parse(
            "[[test]]\nname = 'a'\ngroup = 'g'\nguest = 'lhv'\nmem = 256\n\
             cpu_models = ['x', 'y']\nsame_at_depths = [1, 2]\n",
        )
        .unwrap();
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(
            names,
            ["a@x/depth1", "a@x/depth2", "a@y/depth1", "a@y/depth2"]
        );
        assert_eq!(
            tests[3].options,
            ["--mem=256", "--cpu-model=y", "--timeout=3600"]
        );
        assert!(matches!(tests[3].expect, Expect::SameAsBare { depth: 2 }));
    }

    #[test]
    fn each_thing_that_is_lacking_is_a_test() {
        let text = "[[test]]\nname = 'a'\ngroup = 'g'\nguest = 'lhv'\n\
            lacking = ['485.7', 'field.6402']\n";
        let tests = parse(text).unwrap();
        assert_eq!(tests.len(), 2);
        assert_eq!(tests[1].name, "a@field.6402");
        assert_eq!(tests[1].options, ["--timeout=3600", "--lacking=field.6402"]);
        assert!(parse(&format!("{text}same_at_depths = [1]\n")).is_err());
    }

    #[test]
    fn a_single_run_is_expected_to_end_well_unless_told_otherwise() {
        let tests = parse(
            "[[test]]\nname = 'a'\ngroup = 'g'\nguest = 'lhv'\noptions = ['--native']\n\
             [[test]]\nname = 'b'\ngroup = 'g'\nguest = 'no'\nstatus = 2\nlast_line = 'no such'\n",
        )
        .unwrap();
        assert!(matches!(
            tests[0].expect,
            Expect::Ends {
                status: 0,
                last_line: None
            }
        ));
        assert!(matches!(
            tests[1].expect,
            Expect::Ends {
                status: 2,
                last_line: Some(_)
            }
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let head = "[[test]]\nname = 'a'\ngroup = 'g'\nguest = 'lhv'\n";
        for bad in [
            "status = 2\nsame_at_depths = [1]\n",
            "same_at_depths = [0]\n",
            "lines = ['(']\n",
            "colour = 'red'\n",
        ] {
            assert!(parse(&format!("{head}{bad}")).is_err(), "{bad}");
        }
        assert!(parse(&format!("{head}{head}")).is_err(), "the same name");
        assert!(parse(head).is_ok());
    }

    /// The declarations that boot a machine and have no limit in ticks, by why
    /// they have none.
    const WITHOUT_TICKS: [(&str, &[&str]); 2] = [
        ("it is about the limit in seconds", &["timeout"]),
        (
            "QEMU counts no ticks",
            &[
                "iommu",
                "iommu-wide",
                "no-vmx-on-tcg",
                "no-vmx-on-tcg-uefi",
                "no-vmx-on-tcg-efi",
            ],
        ),
    ];

    #[test]
    fn what_boots_a_machine_is_limited_in_ticks() {
        let text = std::fs::read_to_string(images::checkout().join(FILE)).unwrap();
        let file: File = toml::from_str(&text).unwrap();
        let without: Vec<&str> = file
            .test
            .iter()
            .filter(|test| test.ticks.is_none() && test.status != Some(fail::USAGE))
            .map(|test| test.name.as_str())
            .collect();
        let excused: Vec<&str> = WITHOUT_TICKS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        for name in &without {
            assert!(excused.contains(name), "{name} has no limit in ticks");
        }
        for name in &excused {
            assert!(without.contains(name), "{name} needs no excuse");
        }
    }

    #[test]
    fn the_projects_own_declarations_make_sense() {
        assert!(!read().unwrap().is_empty());
    }
}
