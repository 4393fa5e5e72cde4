//! The bench: one L2, one page under test at a fixed linear address, four kinds of access.

use core::fmt::{Arguments, Display};

use rt::page::Page;
use rt::vmx::Vmx;
use rt::vmx::ept::Ept;
use rt::vmx::insn::{self, read, write};
use rt::vmx::vm::{Mode, Outcome, Vm, layout};
use rt::{case, report};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::path::Path;
use crate::show::Short;

/// The linear address of the page under test.
pub const LINEAR: u64 = 0x10_0000;
/// Flags of L2's own page-table entries: present, writable, user, accessed, dirty. With both flags set the
/// CPU has no cause to write to L2's tables.
pub const GUEST_FLAGS: u64 = 0x67;
/// EPT pointer: accessed and dirty flags on.
pub const FLAGS_ON: u64 = 1 << 6;
/// What the first reads find in the page.
const CONTENT: u32 = 0x1357_9bdf;

/// How L2 touches the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// MOV from it.
    Read,
    /// MOV to it.
    Write,
    /// JMP to it.
    Fetch,
    /// ADD to it: a read and a write of one instruction.
    Modify,
}

/// Every kind of access, with its letter.
pub const ACCESSES: [(&str, Access); 4] = [
    ("r", Access::Read),
    ("w", Access::Write),
    ("x", Access::Fetch),
    ("m", Access::Modify),
];

/// VMCALL, which ends every piece of L2's code.
const VMCALL: [u8; 3] = [0x0f, 0x01, 0xc1];

impl Access {
    /// The instruction, the same for 64 and 32 bits, with the address in RDI.
    fn code(self) -> &'static [u8] {
        match self {
            Self::Read => &[0x8b, 0x07, 0x0f, 0x01, 0xc1],
            Self::Write => &[0x89, 0x07, 0x0f, 0x01, 0xc1],
            Self::Fetch => &[0xff, 0xe7],
            Self::Modify => &[0x83, 0x07, 0x01, 0x0f, 0x01, 0xc1],
        }
    }

    /// Where in the page.
    fn offset(self) -> u64 {
        if self == Self::Fetch { 0x40 } else { 0x10 }
    }
}

/// The bench.
pub struct Lab {
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
    /// The page under test.
    pub target: Page,
    /// The ways to it by leaves of 4 KiB, 2 MiB and 1 GiB.
    pub paths: [Path; 3],
    /// The way in use.
    pub path: Path,
    /// Bits of a violation's qualification that the transcript leaves out, for a data access.
    pub hidden: u64,
}

impl Lab {
    /// A bench in VMX operation.
    pub fn new(vmx: Vmx) -> Self {
        let vm = Vm::new(&vmx);
        let target = Page::alloc(1);
        let paths = [1, 2, 3].map(|leaf| Path::new(target.address(), leaf));
        let mut lab = Self {
            vmx,
            vm,
            target,
            paths,
            path: paths[0],
            hidden: 0,
        };
        lab.reset(Mode::Long);
        lab
    }

    /// L2 anew. Exceptions exit, so that no L2 runs away.
    pub fn reset(&mut self, mode: Mode) {
        self.vm.reset(mode, true);
        write(field::EXCEPTION_BITMAP, 0xffff_ffff);
        self.mark_guest_tables();
        self.choose(1);
    }

    /// Sets accessed and dirty flags in L2's own tables.
    fn mark_guest_tables(&mut self) {
        let memory = self.vm.memory;
        let is_long = self.vm.mode() == Mode::Long;
        let tables: &[u64] = if is_long {
            &[0, 0x1000, 0x2000]
        } else {
            &[0x2000]
        };
        for table in tables {
            let at = layout::TABLES + table;
            memory.write(at, memory.read::<u64>(at) | GUEST_FLAGS);
        }
        for page in 0..512 {
            let at = layout::PAGE_TABLE + 8 * page;
            memory.write(at, memory.read::<u64>(at) | GUEST_FLAGS);
        }
    }

    /// EPT of L2.
    pub fn ept(&self) -> &Ept {
        self.vm.ept()
    }

    /// Takes the way with a leaf of level `leaf`, makes it good, and points L2's own entry there.
    pub fn choose(&mut self, leaf: u32) {
        self.path = self.paths[leaf as usize - 1];
        self.mend();
        self.point(self.path.gpa, GUEST_FLAGS);
    }

    /// Makes L2's linear address lead to `gpa`.
    pub fn point(&mut self, gpa: u64, flags: u64) {
        let at = layout::PAGE_TABLE + 8 * (LINEAR >> 12);
        self.vm.memory.write(at, gpa | flags);
    }

    /// Makes the way good again; what the CPU has cached is dropped.
    pub fn mend(&mut self) {
        self.path.mend(self.vm.ept());
        self.flush();
    }

    /// INVEPT of L2's EPT pointer as the VMCS has it.
    pub fn flush(&self) {
        let pointer = read(field::EPT_POINTER);
        insn::invept(1, [pointer, 0]).expect("INVEPT of a good pointer");
    }

    /// Writes the entry of a level on the way; what the CPU has cached is dropped.
    pub fn set(&mut self, level: u32, entry: u64) {
        self.path.set(self.vm.ept(), level, entry);
        self.flush();
    }

    /// Turns accessed and dirty flags on or off; `false` where the CPU has none.
    pub fn use_flags(&mut self, on: bool) -> bool {
        if on && self.vmx.caps.ept_vpid & 1 << 21 == 0 {
            return false;
        }
        let flags = if on { FLAGS_ON } else { 0 };
        write(field::EPT_POINTER, self.vm.ept().pointer() | flags);
        self.flush();
        true
    }

    /// Turns secondary controls on; says so and returns `false` where the CPU lacks them.
    pub fn turn_on(&mut self, controls: Proc2, name: &str) -> bool {
        let is_there = self.vm.proc2(controls, Proc2::empty());
        if !is_there {
            self.vm.proc2(Proc2::empty(), controls);
            report::lacks(format_args!("{name}"));
        }
        is_there
    }

    /// Lets L2 touch the page.
    pub fn access(&mut self, access: Access) -> Short {
        self.target.write(0x10, CONTENT);
        self.target.write_bytes(0x40, &VMCALL);
        self.vm.registers.rdi = LINEAR + access.offset();
        self.vm.registers.rax = 5;
        let answer = self.execute(access.code());
        if access == Access::Fetch {
            return answer;
        }
        Short {
            hidden: self.hidden,
            ..answer
        }
    }

    /// Lets L2 execute a piece of code.
    pub fn execute(&mut self, code: &[u8]) -> Short {
        self.vm.memory.write_bytes(layout::CODE, code);
        self.vm.jump(0);
        self.resume()
    }

    /// Lets L2 go on where it is.
    pub fn resume(&mut self) -> Short {
        let outcome = self.vm.run();
        self.short(outcome)
    }

    /// An outcome in short form.
    pub fn short(&self, outcome: Outcome) -> Short {
        Short {
            outcome,
            gpa: self.path.gpa,
            linear: LINEAR,
            hidden: 0,
        }
    }

    /// Counts a case and prints its line.
    pub fn record(&self, id: Arguments<'_>, answer: impl Display) {
        case!("{id}: {answer}");
    }

    /// All four accesses, a case each; what the CPU has cached is dropped before each.
    pub fn all_accesses(&mut self, id: Arguments<'_>) {
        for (letter, access) in ACCESSES {
            self.flush();
            let answer = self.access(access);
            self.record(format_args!("{id} {letter}"), answer);
        }
    }
}
