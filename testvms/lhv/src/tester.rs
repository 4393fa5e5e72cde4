//! The transcript and the count.

use core::fmt::Display;

use rt::println;
use rt::vmx::vm::{Code, Mode, Outcome, Vm};
use rt::vmx::{Exit, Vmx};
use umbra_vmcs::exit::Reason;

/// Runs L2, prints each exit on a line, and counts what was checked.
pub struct Tester {
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
    /// The mode of the family that is running.
    pub mode: Mode,
    /// Whether that family has EPT on.
    pub with_ept: bool,
    /// Checks made.
    pub checks: u32,
    /// Checks that failed.
    pub wrong: u32,
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
            checks: 0,
            wrong: 0,
        }
    }

    /// Prints a heading.
    pub fn title(&self, name: &str) {
        println!("== {name}");
    }

    /// Starts a family.
    pub fn begin(&mut self, name: &str, mode: Mode, with_ept: bool) {
        self.mode = mode;
        self.with_ept = with_ept;
        let ept = if with_ept { "ept" } else { "no-ept" };
        println!("== {name} {} {ept}", mode.name());
    }

    /// L2 anew, in the family's mode, before `code`.
    pub fn fresh(&mut self, code: &Code) {
        self.vm.reset(self.mode, self.with_ept);
        self.vm.load(code);
    }

    /// Counts a check; one that fails is printed.
    pub fn check(&mut self, what: &str, is_right: bool) {
        self.checks += 1;
        if !is_right {
            self.wrong += 1;
            println!("WRONG {what}");
        }
    }

    /// Counts a comparison; one that fails is printed with both sides.
    pub fn equal<T: PartialEq + Display>(&mut self, what: &str, found: T, expected: T) {
        self.checks += 1;
        if found != expected {
            self.wrong += 1;
            println!("WRONG {what}: {found}, expected {expected}");
        }
    }

    /// Runs L2 to its next exit, prints it, and checks its reason.
    pub fn exit(&mut self, what: &str, expected: Reason) -> Exit {
        let outcome = self.vm.run();
        println!("{what}: {outcome}");
        let Outcome::Exit(exit) = outcome else {
            self.check(what, false);
            return Exit::none();
        };
        self.checks += 1;
        if exit.is_entry_failure() || exit.known() != Some(expected) {
            self.wrong += 1;
            println!(
                "WRONG {what}: expected {} {}",
                expected as u16,
                expected.name()
            );
        }
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
        println!("{what}: {outcome}");
        let is_right = matches!(outcome, Outcome::Exit(exit)
            if exit.is_entry_failure() && exit.basic() == reason
                && exit.qualification == qualification);
        self.check(what, is_right);
    }

    /// Says that this CPU lacks what a test needs.
    pub fn skip(&self, what: &str) {
        println!("{what}: not offered");
    }
}
