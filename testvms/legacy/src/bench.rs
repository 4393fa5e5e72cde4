//! The bench for single cases: memory, segments, and one line for what came of each.

use core::fmt::{Arguments, Write as _};

use rt::case;
use rt::page::Page;
use rt::trap::{has_error_code, vector_name};
use rt::vmx::{CR4_VMXE, Vmx, insn};
use umbra_vmcs::VmxCaps;

use crate::machine::{self, EXITED, Frame, Gprs, Job, Setup};
use crate::segments::{self, CODE32, Descriptors, FLAT};
use crate::tables::{Kind, LARGE, LARGE_READ_ONLY, LARGE_RESERVED, LAST, P, Tables, U, V86, W};
use crate::window::{ABSENT, CODE, DATA, KERNEL, READ_ONLY, RESERVED, STACK, at};

/// The arithmetic flags, all set, and the bit that is always set: what a case starts with.
pub const FLAGS: u32 = 0x8d7;
/// RFLAGS.RF, which a fault sets in the image that it pushes.
const RESUME_FLAG: u32 = 1 << 16;

/// Everything that a case can choose.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// The code; INT3 follows it.
    pub bytes: &'a [u8],
    /// The paging.
    pub kind: Kind,
    /// How far VMX operation gets beforehand.
    pub setup: Setup,
    /// Code, stack and data segments, and EFLAGS.
    pub frame: Frame,
    /// General registers.
    pub gprs: Gprs,
    /// Bits of CR0 to invert.
    pub cr0: u32,
    /// Bits of CR4 to invert.
    pub cr4: u32,
    /// Bits of IA32_EFER besides LME.
    pub efer: u32,
    /// The VMCS that is current, if one is.
    pub own: Page,
    /// Exits after which L2 goes on.
    pub passes: u32,
}

/// The bench.
pub struct Bench {
    /// VMX operation of this CPU.
    pub vmx: Vmx,
    /// The capability MSRs.
    pub caps: VmxCaps,
    /// A hierarchy of each kind, in the order of [`Kind::ALL`].
    pub tables: [Tables; 3],
    /// The descriptor tables.
    pub descriptors: Descriptors,
    code: Page,
    /// The data pages: two at [`DATA`], then the ones around the bad pages.
    pub data: Page,
    /// Page 0 and the last one of the linear addresses.
    pub ends: Page,
    /// The page of virtual-8086 code.
    pub v86: Page,
    /// The VMCS that a case has as the current one unless it says otherwise.
    pub own: Page,
    /// Another VMCS, clear.
    pub other: Page,
}

impl Bench {
    /// A bench; the CPU is not in VMX operation.
    pub fn new(vmx: Vmx) -> Self {
        let bench = Self {
            caps: vmx.caps,
            tables: Kind::ALL.map(Tables::new),
            descriptors: Descriptors::new(),
            code: Page::alloc(1),
            data: Page::alloc(12),
            ends: Page::alloc(2),
            v86: Page::alloc(1),
            own: vmx.new_vmcs(),
            other: vmx.new_vmcs(),
            vmx,
        };
        for tables in &bench.tables {
            bench.map(tables);
        }
        bench
    }

    /// The linear memory of the tests, with accessed and dirty flags clear.
    fn map(&self, tables: &Tables) {
        let data = |page: u32| self.data.address() + u64::from(page) * 4096;
        for (page, physical, bits) in [
            (CODE, self.code.address(), P | W | U),
            (DATA, data(0), P | W | U),
            (DATA + 1, data(1), P | W | U),
            (STACK, data(2), P | W | U),
            (ABSENT, data(3), W | U),
            (ABSENT + 1, data(4), P | W | U),
            (READ_ONLY - 1, data(5), P | W | U),
            (READ_ONLY, data(6), P | U),
            (KERNEL, data(7), P | W),
            (KERNEL + 1, data(8), P),
            (RESERVED - 1, data(9), P | W | U),
            (RESERVED, data(10), P | W | U | reserved(tables.kind)),
        ] {
            tables.map(at(page), physical, bits);
        }
        tables.map(0, self.ends.address(), P | W | U);
        tables.map(LAST, self.ends.address() + 4096, P | W | U);
        tables.map(V86, self.v86.address(), P | W | U);
    }

    /// The hierarchy of a kind.
    pub fn tables(&self, kind: Kind) -> &Tables {
        &self.tables[kind as usize]
    }

    /// A case at privilege level 0 in flat 32-bit segments.
    pub fn case<'a>(&self, kind: Kind, setup: Setup, bytes: &'a [u8]) -> Case<'a> {
        Case {
            bytes,
            kind,
            setup,
            frame: Frame {
                eip: at(CODE),
                cs: CODE32,
                eflags: FLAGS,
                esp: at(STACK) + 0x800,
                ss: FLAT,
                es: FLAT,
                ds: FLAT,
                fs: FLAT,
                gs: FLAT,
            },
            gprs: Gprs::default(),
            cr0: 0,
            cr4: 0,
            efer: 0,
            own: self.own,
            passes: 0,
        }
    }

    /// Does something in VMX operation in 64-bit mode, with a VMCS current that is clear before and after.
    pub fn in_long_mode<T>(&self, own: &Page, what: impl FnOnce() -> T) -> T {
        let pointer = own.address();
        self.vmx.enter().expect("VMXON in 64-bit mode");
        insn::vmclear(&pointer).expect("VMCLEAR in 64-bit mode");
        insn::vmptrld(&pointer).expect("VMPTRLD in 64-bit mode");
        let result = what();
        insn::vmclear(&pointer).expect("VMCLEAR in 64-bit mode");
        Vmx::leave().expect("VMXOFF in 64-bit mode");
        result
    }

    /// Writes a quadword to the places where an operand may begin, and zeros elsewhere.
    pub fn fill(&self, value: u64) {
        self.data.fill(0);
        self.ends.fill(0);
        for page in 0..12 {
            for offset in [0, 4088] {
                self.data.write(page * 4096 + offset, value);
            }
        }
    }

    /// The CPU state and the tables of a case.
    pub fn job(&self, case: &Case<'_>) -> Job {
        let fixed = self.caps;
        let cr0 = (0x8001_0033 | fixed.cr0_fixed0) & fixed.cr0_fixed1;
        let mut cr4 = rt::cpu::cr4() & !0x30 | u64::from(case.kind.cr4());
        if case.setup != Setup::Off {
            cr4 |= CR4_VMXE | fixed.cr4_fixed0;
        }
        let pointer = |page: &Page| [page.address() as u32, 0];
        self.descriptors.reset();
        // SAFETY: integers and arrays of integers alone.
        let zero: Job = unsafe { core::mem::zeroed() };
        Job {
            cr0: cr0 as u32 ^ case.cr0,
            cr3: self.tables(case.kind).cr3(),
            cr4: cr4 as u32 ^ case.cr4,
            efer: case.efer,
            gdtr: Descriptors::pointer(segments::BYTES - 1, &self.descriptors.gdt),
            idtr: Descriptors::pointer(255, &self.descriptors.idt),
            task: segments::TASK,
            setup: case.setup as u32,
            region: pointer(&self.vmx.region),
            own: pointer(&case.own),
            other: pointer(&self.other),
            frame: case.frame,
            gprs: case.gprs,
            passes: case.passes,
            ..zero
        }
    }

    /// Runs a case.
    pub fn run(&self, case: &Case<'_>) -> Job {
        for page in [&self.code, &self.v86] {
            page.fill(0xcc);
            page.write_bytes(0, case.bytes);
        }
        let out = machine::run(&self.job(case));
        assert!(out.setup_failed == 0, "the setup of a case failed");
        out
    }

    /// Runs a case and prints its line.
    pub fn show(&self, id: Arguments<'_>, case: &Case<'_>) -> Job {
        let out = self.run(case);
        case!(
            "{id}: {}",
            Shown {
                bench: self,
                case,
                out: &out
            }
        );
        out
    }
}

/// A bit of a last-level entry that is reserved: the highest below XD, or XD itself. 32-bit paging has none.
fn reserved(kind: Kind) -> u64 {
    if kind == Kind::Pae { 1 << 62 } else { 0 }
}

/// What came of a case.
pub struct Shown<'a> {
    pub bench: &'a Bench,
    pub case: &'a Case<'a>,
    pub out: &'a Job,
}

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (case, out) = (self.case, self.out);
        let moved = out.out_frame.eip.wrapping_sub(case.frame.eip);
        let vector = out.vector as u8;
        if out.vector == EXITED {
            f.write_str("exit")?;
        } else if vector == 3 && moved == case.bytes.len() as u32 + 1 {
            let flags = out.out_frame.eflags;
            match (flags & 0x8d5, flags & !0x8d5 == case.frame.eflags & !0x8d5) {
                (0, true) => f.write_str("ok")?,
                (1, true) => f.write_str("fi")?,
                (0x40, true) => write!(f, "f{}", out.error_number)?,
                _ if flags == case.frame.eflags => f.write_str("through")?,
                _ => write!(f, "flags {flags:x}")?,
            }
        } else {
            f.write_str(vector_name(vector))?;
            if has_error_code(vector) {
                write!(f, "({:x})", out.error)?;
            }
            if moved != 0 {
                write!(f, " eip+{moved:x}")?;
            }
            // A fault sets RF in what it pushes and leaves the flags otherwise.
            let changed = out.out_frame.eflags ^ case.frame.eflags;
            if changed != RESUME_FLAG {
                write!(f, " flags^{changed:x}")?;
            }
        }
        let in_data = out.cr2.wrapping_sub(self.bench.data.address() as u32);
        match out.cr2 {
            0 => {}
            // Physical memory from 0 on: where the data lies there depends on the program.
            LARGE..LARGE_READ_ONLY => write!(f, " cr2=large+{:x}", in_data - LARGE)?,
            LARGE_READ_ONLY..LARGE_RESERVED => {
                write!(f, " cr2=large-ro+{:x}", in_data - LARGE_READ_ONLY)?;
            }
            cr2 => write!(f, " cr2={cr2:x}")?,
        }
        let expected = case.setup != Setup::Off;
        match (out.is_on != 0, expected) {
            (true, false) => f.write_str(" on")?,
            (false, true) => f.write_str(" off")?,
            _ => {}
        }
        if out.is_on != 0 {
            let bench = self.bench;
            let current = u64::from(out.current[0]) | u64::from(out.current[1]) << 32;
            let word = match current {
                u64::MAX => "none",
                a if a == case.own.address() => "own",
                a if a == bench.other.address() => "other",
                _ => "?",
            };
            let before = if case.setup == Setup::Current {
                "own"
            } else {
                "none"
            };
            if word != before {
                write!(f, " current {word}")?;
            }
        }
        f.write_char('.')
    }
}
