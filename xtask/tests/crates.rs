//! The crates from outside keep to `deny.toml`: their licences, where they come
//! from, and that there is one version of each.
//!
//! cargo-deny reads the same file, and more of it (advisories), but takes
//! minutes to install; `cargo metadata` has all that these rules ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    sources: Sources,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    name: String,
}

/// A crate as the rules look at it.
#[derive(Clone)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the packages of this workspace.
    source: Option<String>,
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the checkout")
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(checkout().join("deny.toml")).expect("deny.toml is there");
    toml::from_str(&text).expect("deny.toml makes sense")
}

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version=1"])
        .current_dir(checkout())
        .output()
        .expect("cargo starts");
    assert!(out.status.success(), "cargo metadata");
    serde_json::from_slice(&out.stdout).expect("cargo prints JSON")
}

fn packages(metadata: &Value) -> Vec<Package> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = metadata["packages"].as_array().expect("a list of packages");
    list.iter()
        .map(|package| Package {
            name: text(&package["name"]).expect("a package has a name"),
            version: text(&package["version"]).expect("a package has a version"),
            license: text(&package["license"]),
            source: text(&package["source"]),
        })
        .collect()
}

/// What is wrong with the crates, a line each.
fn wrong(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let Some(source) = &package.source else {
            continue;
        };
        let known = |url: &String| source.strip_prefix("registry+") == Some(url);
        if !rules.sources.allow_registry.iter().any(known) {
            wrong.push(format!("{} comes from {source}", package.name));
        }
        let license = package.license.as_deref().unwrap_or_default();
        let allowed = Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|wanted| {
                let id = wanted.license.id().map(|id| id.name);
                // An exception only adds permissions.
                id.is_some_and(|id| rules.licenses.allow.iter().any(|known| known == id))
            })
        });
        if !allowed {
            wrong.push(format!("{} has the licence {license:?}", package.name));
        }
        versions
            .entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    for (name, versions) in versions {
        let skipped = rules.bans.skip.iter().any(|skip| skip.name == name);
        match (versions.len(), skipped) {
            (1, true) => wrong.push(format!("{name}: one version; it need not be skipped")),
            (2.., false) => wrong.push(format!("{name} is here as {versions:?}")),
            _ => {}
        }
    }
    wrong
}

#[test]
fn every_crate_keeps_to_the_rules() {
    let wrong = wrong(&rules(), &packages(&metadata()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let rules = Rules {
        licenses: Licenses {
            allow: vec!["MIT".to_owned()],
        },
        sources: Sources {
            allow_registry: vec!["https://registry".to_owned()],
        },
        bans: Bans {
            skip: vec![Skip {
                name: "twice".to_owned(),
            }],
        },
    };
    let package = |name: &str, version: &str, license: &str, source: &str| Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: Some(license.to_owned()),
        source: Some(source.to_owned()),
    };
    let good = [
        package("a", "1", "MIT/Apache-2.0", "registry+https://registry"),
        package("twice", "1", "MIT", "registry+https://registry"),
        package("twice", "2", "MIT", "registry+https://registry"),
    ];
    assert_eq!(wrong(&rules, &good), [""; 0]);
    let cases = [
        (
            package("b", "1", "GPL-3.0", "registry+https://registry"),
            "b has",
        ),
        (
            package("b", "1", "MIT AND Zlib", "registry+https://registry"),
            "b has",
        ),
        (package("b", "1", "", "registry+https://registry"), "b has"),
        (package("b", "1", "MIT", "git+https://registry"), "b comes"),
        (
            package("a", "2", "MIT", "registry+https://registry"),
            "a is here",
        ),
    ];
    for (bad, says) in cases {
        let mut packages = good.to_vec();
        packages.push(bad);
        let found = wrong(&rules, &packages);
        assert!(found.len() == 1 && found[0].starts_with(says), "{found:?}");
    }
    assert!(wrong(&rules, &good[..2])[0].contains("need not"));
}
