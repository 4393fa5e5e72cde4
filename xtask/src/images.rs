//! Building what boots: Umbra's image and the test VMs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::ui::{self, Step};
use crate::{fail, packages};

/// The target is named so that the flags reach neither build scripts nor
/// procedural macros.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Umbra is linked into the top 2 GiB of the address space; an NMI may come
/// at any time, so nothing may live below the stack pointer.
const UMBRA_FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=yes",
    "-Cforce-frame-pointers=no",
];
/// Test VMs run where they are loaded, in low memory.
const TESTVM_FLAGS: &[&str] = &["-Crelocation-model=static", "-Cno-redzone=yes"];

/// The checkout that this program was built from.
pub fn checkout() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// What can be built into Umbra: one of the extensions in `hypapp/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Hypapp {
    /// A leaf of CPUID and a call, to begin with.
    Hello,
}

impl Hypapp {
    /// Umbra's image with it, or without any.
    pub fn image(hypapp: Option<Self>) -> Image {
        hypapp.map_or(Image::Umbra, Image::UmbraWith)
    }
}

/// A freestanding package of the workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Image {
    /// Umbra itself.
    Umbra,
    /// The same, which counts its VMCS accesses as well.
    UmbraWithAccesses,
    /// The same without what can be left out.
    UmbraPlain,
    /// Umbra with what its own tests ask of it, never what a person runs.
    UmbraForTests,
    /// Umbra with a hypapp.
    UmbraWith(Hypapp),
    /// The test VM in `testvms/<name>`.
    TestVm(String),
}

impl Image {
    /// The name that a person knows it by.
    pub fn name(&self) -> &str {
        match self {
            Self::Umbra => "umbra",
            Self::UmbraWithAccesses => "umbra-with-accesses",
            Self::UmbraPlain => "umbra-plain",
            Self::UmbraForTests => "umbra-for-tests",
            Self::UmbraWith(Hypapp::Hello) => "umbra-with-hello",
            Self::TestVm(name) => name,
        }
    }

    fn package(&self) -> &str {
        match self {
            Self::TestVm(name) => name,
            _ => "umbra",
        }
    }

    /// What is left out or added, and a folder of its own for that, so that a run at the same time does not find
    /// the other program in its place.
    fn features(&self) -> &'static [&'static str] {
        match self {
            Self::UmbraWithAccesses => &[
                "--features=ledger-accesses",
                "--target-dir=target/with-accesses",
            ],
            Self::UmbraPlain => &["--no-default-features", "--target-dir=target/plain"],
            Self::UmbraForTests => &["--features=fake-caps", "--target-dir=target/for-tests"],
            Self::UmbraWith(Hypapp::Hello) => {
                &["--features=hypapp-hello", "--target-dir=target/with-hello"]
            }
            Self::Umbra | Self::TestVm(_) => &[],
        }
    }

    fn flags(&self) -> &'static [&'static str] {
        match self {
            Self::TestVm(_) => TESTVM_FLAGS,
            _ => UMBRA_FLAGS,
        }
    }

    /// `cargo VERB` for this package with the flags that it needs.
    pub fn cargo(&self, verb: &str) -> Command {
        let quoted: Vec<String> = self.flags().iter().map(|f| format!("{f:?}")).collect();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command
            .current_dir(checkout())
            // Flags from outside would take the place of those given here.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .args([verb, "--profile", "image", "--target", TARGET])
            .args(["-p", self.package()])
            .args(self.features())
            .arg("--config")
            .arg(format!("target.{TARGET}.rustflags=[{}]", quoted.join(",")));
        command
    }

    /// Builds the image and gives the file.
    ///
    /// # Errors
    /// It does not compile; the compiler's words go to stderr.
    pub fn build(&self) -> Result<PathBuf> {
        let step = Step::start_quietly(format!("building {}", self.name()));
        let out = self
            .cargo("build")
            .arg("--message-format=json-render-diagnostics")
            .arg("--quiet")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !out.status.success() {
            bail!("{} does not build", self.package());
        }
        let file = executable_in(&String::from_utf8_lossy(&out.stdout), self.package())
            .with_context(|| format!("cargo made no program {}", self.package()))?;
        step.done();
        match self {
            Self::TestVm(_) => as_32_bit_elf(&file),
            _ => {
                check_registers(&file)?;
                Ok(file)
            }
        }
    }
}

/// Refuses an image that uses XMM8 to XMM15 where it must not: the stub around VM
/// exits keeps the others alone, so these hold L1's or L2's values.
///
/// # Errors
/// It does, or cannot be disassembled.
fn check_registers(image: &Path) -> Result<()> {
    let out = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn"])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .context("cannot start objdump (Debian package binutils)")?;
    if !out.status.success() {
        bail!("objdump cannot read {}", image.display());
    }
    match first_forbidden(&String::from_utf8_lossy(&out.stdout)) {
        None => Ok(()),
        Some(function) => bail!(
            "{function} in {} uses XMM8 to XMM15, which hold a guest's values: see \
             core/src/arch/xmm.rs",
            image.display()
        ),
    }
}

/// The first function that uses those registers and is none of these: the formatting
/// of text and the console, which keep them; the first entry, which clears them; the
/// way from and to the firmware, where there is no guest.
fn first_forbidden(disassembly: &str) -> Option<&str> {
    const ALLOWED: [&str; 4] = ["4core3fmt", "console", "umbra_first_entry", "umbra_efi_"];

    let mut function = "the start of the text";
    disassembly.lines().find_map(|line| {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|l| l.split_once('<')) {
            function = name;
        }
        let numbers = line.split("%xmm").skip(1).map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit());
            rest[..digits.unwrap_or(rest.len())].parse::<u8>()
        });
        let uses = numbers.into_iter().flatten().any(|number| number >= 8)
            || ["%ymm", "%zmm"].iter().any(|wide| line.contains(wide));
        (uses && !ALLOWED.iter().any(|allowed| function.contains(allowed))).then_some(function)
    })
}

/// Umbra as an EFI application, beside the image `elf` that it is made of.
///
/// # Errors
/// It cannot be made.
pub fn umbra_efi(elf: &Path) -> Result<PathBuf> {
    let target = elf.with_extension("efi");
    let bytes = std::fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let fresh = tempfile::Builder::new()
        .prefix(".efi-")
        .tempdir_in(elf.parent().unwrap_or(Path::new(".")))?;
    let partial = fresh.path().join("image");
    std::fs::write(&partial, crate::pe::from_image(&bytes)?)?;
    std::fs::rename(&partial, &target)?;
    Ok(target)
}

/// Puts Umbra into `folder`, as `umbra.elf` and as `umbra.efi`.
///
/// # Errors
/// It cannot be built, or the folder cannot be written to.
pub fn put(image: &Image, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .map_err(|error| fail::usage(format!("--output {}: {error}", folder.display())))?;
    let elf = image.build()?;
    let efi = umbra_efi(&elf)?;
    for (file, name) in [(elf, "umbra.elf"), (efi, "umbra.efi")] {
        let target = folder.join(name);
        std::fs::copy(&file, &target)
            .with_context(|| format!("cannot write {}", target.display()))?;
        ui::note(target.display().to_string());
    }
    Ok(())
}

/// The names of the test VMs: the folders in `testvms/` that hold a program.
///
/// # Errors
/// The folder cannot be read.
pub fn test_vms() -> Result<Vec<String>> {
    let folder = checkout().join("testvms");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let boots = entry.path().join("src/main.rs").is_file();
            boots.then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    Ok(names)
}

/// The program of `package` in cargo's JSON messages.
fn executable_in(messages: &str, package: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == package)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The same program as a 32-bit ELF file beside it: boot loaders for
/// multiboot take the entry as 32-bit code, and some take no other file.
fn as_32_bit_elf(file: &Path) -> Result<PathBuf> {
    packages::need(&["objcopy"])?;
    let target = file.with_extension("elf32");
    // Two runs at the same time must not see each other's half-written file.
    let fresh = tempfile::Builder::new()
        .prefix(".elf32-")
        .tempdir_in(file.parent().unwrap_or(Path::new(".")))?;
    let partial = fresh.path().join("image");
    crate::cmd::run(
        Command::new("objcopy")
            .args(["-O", "elf32-i386", "--strip-debug"])
            .arg(file)
            .arg(&partial),
    )?;
    std::fs::rename(&partial, &target)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_registers_are_found_where_they_are_used() {
        let text = |function: &str, instruction: &str| {
            format!("ffffffff80200000 <{function}>:\nffffffff80200000:\t{instruction}\n")
        };
        let used = "movaps %xmm1,%xmm12";
        assert_eq!(
            first_forbidden(&text("umbra_handle", used)),
            Some("umbra_handle")
        );
        assert_eq!(
            first_forbidden(&text("_ZN4core3fmt9Formatter3pad17h0E", used)),
            None
        );
        assert_eq!(
            first_forbidden(&text("umbra_handle", "movaps %xmm1,%xmm7")),
            None
        );
        let wide = "vmovups (%rax),%ymm0";
        assert_eq!(
            first_forbidden(&text("umbra_handle", wide)),
            Some("umbra_handle")
        );
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"umbra_vmcs\"},\"executable\":null}\n\
            not json\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lhv\"},\"executable\":\"/t/lhv\"}\n";
        assert_eq!(executable_in(messages, "lhv"), Some("/t/lhv".into()));
        assert_eq!(executable_in(messages, "umbra_vmcs"), None);
    }

    #[test]
    fn the_checkout_holds_the_workspace() {
        assert!(checkout().join("Cargo.toml").is_file());
        let test_vms = test_vms().unwrap();
        assert!(test_vms.contains(&"lhv".to_owned()));
        assert!(
            !test_vms.contains(&"rt".to_owned()),
            "a library boots nowhere"
        );
    }
}
