//! The page `docs/rules.md`, made from the rows.

use core::fmt::{self, Write};

use super::instructions::{self, InsnAnswer};
use super::{
    Answer, CONTROLS, GUEST_STATE, Group, HOST_STATE, MSR_LOAD_RULES, MSR_STORE_RULES, MsrRule,
    Runs,
};
use crate::field;

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailValid(error) => write!(f, "VMfailValid({})", error.number()),
            Self::GuestState { qualification } => {
                write!(f, "VM exit 33, bit 31, qualification {qualification}")
            }
            Self::MsrLoading => f.write_str("VM exit 34, bit 31, qualification = entry number"),
        }
    }
}

impl fmt::Display for InsnAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOpcode => f.write_str("#UD"),
            Self::GeneralProtection => f.write_str("#GP(0)"),
            Self::OperandFault => f.write_str("the operand's fault"),
            Self::FailInvalid => f.write_str("VMfailInvalid"),
            Self::Fail(error) => write!(f, "VMfail({})", error.number()),
            Self::VmExit => f.write_str("VM exit"),
        }
    }
}

/// Writes the page.
///
/// # Errors
/// What `out` gives.
pub fn write_page(out: &mut impl Write) -> fmt::Result {
    out.write_str(
        "# The rules of VM entry and of the VMX instructions\n\n\
         Generated from the rows in `vmcs/src/rules`; to make it anew:\n\
         `cargo run -p umbra-vmcs --example rules > docs/rules.md`.\n\n\
         One row a check, in the order in which they are made. The titles are those of the SDM's\n\
         sections (their numbers change from edition to edition). A group is evaluated again only\n\
         when a field that it reads was written since it last passed, or at each entry where it\n\
         also looks at memory or at L1's registers.\n\n",
    )?;
    let rules = |groups: &[&Group]| groups.iter().map(|g| g.rules.len()).sum::<usize>();
    let instructions: usize = instructions::ALL.iter().map(|table| table.len()).sum();
    writeln!(out, "| what | rows |\n|---|---|")?;
    writeln!(out, "| checks on VMX controls | {} |", rules(CONTROLS))?;
    writeln!(out, "| checks on host state | {} |", rules(HOST_STATE))?;
    writeln!(out, "| checks on guest state | {} |", rules(GUEST_STATE))?;
    let msrs = MSR_LOAD_RULES.len() + MSR_STORE_RULES.len();
    writeln!(out, "| MSR areas | {msrs} |")?;
    writeln!(out, "| VMX instructions | {instructions} |\n")?;

    phase(out, "Checks on VMX controls", CONTROLS)?;
    phase(out, "Checks on host state", HOST_STATE)?;
    phase(out, "Checks on guest state", GUEST_STATE)?;
    msr_table(
        out,
        "Loading MSRs",
        "VM entry fails with exit reason 34 and the entry's number, from 1, as its qualification;\n\
         for the VM-exit MSR-load area it is a VMX abort.",
        MSR_LOAD_RULES,
    )?;
    msr_table(out, "Storing MSRs", "A VMX abort.", MSR_STORE_RULES)?;

    out.write_str("## VMX instructions\n\nIn the order of the SDM's pseudo-code.\n\n")?;
    for table in instructions::ALL {
        if let Some(first) = table.first() {
            let (name, _) = first.instruction.split_once("--").unwrap_or((first.id, ""));
            writeln!(
                out,
                "### {name} ({})\n",
                first.id.split('.').next().unwrap_or("")
            )?;
        }
        out.write_str("| id | has to hold | otherwise |\n|---|---|---|\n")?;
        for rule in *table {
            writeln!(out, "| `{}` | {} | {} |", rule.id, rule.what, rule.answer)?;
        }
        out.write_str("\n")?;
    }
    Ok(())
}

fn phase(out: &mut impl Write, title: &str, groups: &[&Group]) -> fmt::Result {
    writeln!(out, "## {title}\n")?;
    for group in groups {
        writeln!(out, "### {}\n", group.name)?;
        if let Some(rule) = group.rules.first() {
            writeln!(out, "SDM \"{}\". Otherwise: {}.", rule.section, rule.answer)?;
        }
        match group.runs {
            Runs::OnChange => out.write_str("Reads ")?,
            Runs::Always => out.write_str("Evaluated at each entry. Reads ")?,
        }
        let mut separator = "";
        for f in field::ALL {
            if group.reads.contains(f) {
                write!(out, "{separator}`{}`", f.name())?;
                separator = ", ";
            }
        }
        out.write_str(".\n\n| id | has to hold |\n|---|---|\n")?;
        for rule in group.rules {
            writeln!(out, "| `{}` | {} |", rule.id, rule.what)?;
        }
        out.write_str("\n")?;
    }
    Ok(())
}

fn msr_table(out: &mut impl Write, title: &str, answer: &str, rules: &[&MsrRule]) -> fmt::Result {
    writeln!(
        out,
        "## {title}\n\n{answer}\n\n| id | has to hold |\n|---|---|"
    )?;
    for rule in rules {
        writeln!(out, "| `{}` | {} |", rule.id, rule.what)?;
    }
    out.write_str("\n")
}
