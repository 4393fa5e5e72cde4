//! L2 and what is expected of it.

use core::fmt::Display;

use rt::vmx::vm::{Base, Code, Mode, Outcome, Vm};
use rt::vmx::{Exit, Vmx};
use rt::{case, report};
use umbra_vmcs::exit::Reason;

/// Runs L2, prints each exit on a line, and checks it.
pub struct Tester {
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
    /// The mode of the family that is running.
    pub mode: Mode,
    /// Whether that family has EPT on.
    pub with_ept: bool,
}

impl Tester {
    /// A tester in VMX operation.
    pub fn new(vmx: Vmx) -> Self {
        let vm = Vm::new(&vmx);
        Self {
            vmx,
            vm,
            mode: Mode::Long,
            with_ept: false,
        }
    }

    /// Starts a family.
    pub fn begin(&mut self, name: &str, mode: Mode, with_ept: bool) {
        self.mode = mode;
        self.with_ept = with_ept;
        report::group(format_args!("{name} {}", Base(mode, with_ept)));
    }

    /// L2 anew, in the family's mode, before `code`.
    pub fn fresh(&mut self, code: &Code) {
        self.vm.reset(self.mode, self.with_ept);
        self.vm.load(code);
    }

    /// Counts a check; one that fails is printed.
    pub fn check(&mut self, what: &str, is_right: bool) {
        report::check(format_args!("{what}"), is_right);
    }

    /// Counts a comparison; one that fails is printed with both sides.
    pub fn equal<T: PartialEq + Display>(&mut self, what: &str, found: T, expected: T) {
        report::equal(format_args!("{what}"), found, expected);
    }

    /// Runs L2 to its next exit, prints it, and checks its reason.
    pub fn exit(&mut self, what: &str, expected: Reason) -> Exit {
        let outcome = self.vm.run();
        case!("{what}: {outcome}");
        let (exit, is_right) = match outcome {
            Outcome::Exit(exit) => {
                let is_right = !exit.is_entry_failure() && exit.known() == Some(expected);
                (exit, is_right)
            }
            _ => (Exit::none(), false),
        };
        report::check(
            format_args!("{what}: expected {} {}", expected as u16, expected.name()),
            is_right,
        );
        exit
    }

    /// As [`Tester::exit`] for an exit by an instruction, which is then skipped; L2 must go on.
    pub fn exit_and_skip(&mut self, what: &str, expected: Reason) -> Exit {
        let exit = self.exit(what, expected);
        self.vm.skip(&exit);
        exit
    }

    /// Runs L2, which must get as far as the VMCALL that ends a piece of code.
    pub fn reach_end(&mut self, what: &str) -> Exit {
        self.exit(what, Reason::Vmcall)
    }

    /// Runs L2, whose entry must fail with this reason.
    pub fn entry_failure(&mut self, what: &str, reason: u16, qualification: u64) {
        let outcome = self.vm.run();
        case!("{what}: {outcome}");
        let is_right = matches!(outcome, Outcome::Exit(exit)
            if exit.is_entry_failure() && exit.basic() == reason
                && exit.qualification == qualification);
        self.check(what, is_right);
    }

    /// Says that this CPU lacks what a test needs.
    pub fn skip(&self, what: &str) {
        report::lacks(format_args!("{what}"));
    }
}
