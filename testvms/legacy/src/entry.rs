//! A legacy L1 enters an L2 and comes back.
//!
//! SDM "Checks Related to Address-Space Size", "Loading Host State" with "host address-space size" 0.

use rt::l2_code;
use rt::page::Page;
use rt::vmx::exit::Exit;
use rt::vmx::insn::{read, write};
use rt::vmx::vm::{Code, Mode, Vm, layout};
use rt::{case, more, report};
use umbra_vmcs::controls::{Entry, Exit as ExitCtl, Proc};
use umbra_vmcs::field::{self, Field};

use crate::bench::{Bench, Case};
use crate::insn::Bytes;
use crate::machine::{EXITED, ExitLog, Job, LOGGED, Setup, exit_address, stack_top};
use crate::segments::{
    BASED_CODE, CODE16, CODE32, CONFORMING, DATA16, FLAT, OTHER_BASE, READ_ONLY, SMALL, TASK,
    USER_CODE32, USER_FLAT,
};
use crate::tables::Kind;
use crate::window::{DATA, at};

const VMLAUNCH: &[u8] = &[0x0f, 0x01, 0xc2];
const VMRESUME: &[u8] = &[0x0f, 0x01, 0xc3];
const NO_EXECUTE: u32 = 1 << 11;

l2_code! {
    fn tour = "mov eax, 0x1234", "mov ebx, 0x5678", "cpuid", "vmcall", "hlt", "in al, 0x71", "out 0x71, al",
        "mov ecx, 0x12345678", "rdmsr", "wrmsr", "invd", "vmxoff", "vmlaunch", "ud2";
    fn page_fault {
        64 = "nop";
        32 = "mov eax, 0x10000000", "mov dword ptr [eax + 0x24], eax";
        16 = "nop";
    }
    fn touch {
        64 = "nop";
        32 = "mov eax, 0x9000", "mov dword ptr [eax + 4], eax";
        16 = "mov ax, 0x900", "mov ds, ax", "mov word ptr [4], ax";
    }
    fn call_vmm = "vmcall";
}

/// What an L2 is made of before a case changes it.
struct Lab<'a> {
    bench: &'a Bench,
    vm: Vm,
}

/// The modes of L2, each with EPT or without.
const MODES: [(Mode, bool); 9] = [
    (Mode::Prot32, false),
    (Mode::Prot32, true),
    (Mode::Pae, false),
    (Mode::Pae, true),
    (Mode::Flat32, true),
    (Mode::Real, true),
    (Mode::V86, false),
    (Mode::V86, true),
    (Mode::Long, true),
];

/// Runs the group.
pub fn run(bench: &Bench) {
    report::group(format_args!("entry"));
    let mut lab = Lab {
        bench,
        vm: Vm::new(&bench.vmx),
    };
    for kind in Kind::ALL {
        for (mode, with_ept) in MODES {
            if lab.vm.can(mode, with_ept) {
                tours(&mut lab, kind, mode, with_ept);
            }
        }
        host_state(&mut lab, kind);
        failures(&mut lab, kind);
        instructions(&mut lab, kind);
    }
}

impl Lab<'_> {
    /// L2 in `mode` before `code`, an L1 of `kind` after it; then the changes that the case makes.
    fn prepare(
        &mut self,
        kind: Kind,
        mode: Mode,
        with_ept: bool,
        code: &Code,
        change: impl FnOnce(&Vm),
    ) {
        let bench = self.bench;
        let case = bench.case(kind, Setup::Current, VMLAUNCH);
        let host = bench.job(&case);
        let own = self.vm.vmcs;
        bench.in_long_mode(&own, || {
            self.vm.reset(mode, with_ept);
            self.vm.load(code);
            self.vm.proc(Proc::HLT_EXITING, Proc::empty());
            self.vm.io_bitmaps.write(0x71 / 8, 2u8);
            self.vm
                .exit_controls(ExitCtl::empty(), ExitCtl::HOST_ADDRESS_SPACE_SIZE);
            write(field::EXCEPTION_BITMAP, 1 << 6 | 1 << 14);
            let (gdt, idt, task) = (
                &bench.descriptors.gdt,
                &bench.descriptors.idt,
                &bench.descriptors.task,
            );
            for (field, value) in [
                (field::HOST_CR0, host.cr0.into()),
                (field::HOST_CR3, host.cr3.into()),
                (field::HOST_CR4, host.cr4.into()),
                (field::HOST_CS_SELECTOR, CODE32.into()),
                (field::HOST_TR_SELECTOR, TASK.into()),
                (field::HOST_TR_BASE, task.address()),
                (field::HOST_GDTR_BASE, gdt.address()),
                (field::HOST_IDTR_BASE, idt.address()),
                (field::HOST_RIP, exit_address().into()),
                (field::HOST_RSP, stack_top().into()),
            ] {
                write(field, value);
            }
            self.set_efer(0);
            change(&self.vm);
        });
    }

    fn set_efer(&self, value: u32) {
        if self.bench.caps.offers_exit(ExitCtl::LOAD_EFER) {
            write(field::HOST_IA32_EFER, value.into());
        }
    }

    fn case<'b>(&self, kind: Kind, bytes: &'b [u8]) -> Case<'b> {
        Case {
            own: self.vm.vmcs,
            ..self.bench.case(kind, Setup::Current, bytes)
        }
    }

    /// Runs and prints the line; after an exit also what it told in 64-bit mode.
    fn run(&self, id: core::fmt::Arguments<'_>, case: &Case<'_>) -> Job {
        let out = self.bench.show(id, case);
        let exits = (out.exits as usize).min(LOGGED);
        for (n, log) in out.log[..exits].iter().enumerate() {
            more!("{n} {}", Logged(log));
        }
        if out.resume_flags != 0 {
            more!("VMRESUME: flags {:x}", out.resume_flags);
        }
        if out.vector == EXITED {
            let has_ept = self.bench.vmx.has_ept();
            let own: Page = self.vm.vmcs;
            let exit = self.bench.in_long_mode(&own, || Exit::read(has_ept));
            more!("{exit}");
        }
        out
    }

    /// Prints the state of L1 after an exit.
    fn show_host(&self, out: &Job) {
        if out.vector != EXITED {
            return;
        }
        let f = &out.out_frame;
        let job = self.bench.job(&self.case(Kind::Pae, VMLAUNCH));
        let table = self
            .bench
            .tables
            .iter()
            .find(|t| t.cr3() == out.out_cr3)
            .map_or("?", |t| t.kind.name());
        more!(
            "cs {:x} ss {:x} ds {:x} es {:x} fs {:x} gs {:x} ldtr {:x} tr {:x} esp {} flags {:x}",
            f.cs,
            f.ss,
            f.ds,
            f.es,
            f.fs,
            f.gs,
            out.ldtr & 0xffff,
            out.out_task & 0xffff,
            if f.esp == stack_top() { "kept" } else { "?" },
            f.eflags,
        );
        let (gdtr, idtr) = (out.out_gdtr, out.out_idtr);
        let base = |p: [u32; 2]| p[0] >> 16 | p[1] << 16;
        more!(
            "gdtr {} {:x} idtr {} {:x} cr0^{:x} cr3 {table} cr4 {:x} efer {:x} dr7 {:x} sysenter {:x?} probes {:x?}",
            base(gdtr) == base(job.gdtr),
            gdtr[0] & 0xffff,
            base(idtr) == base(job.idtr),
            idtr[0] & 0xffff,
            out.out_cr0 ^ job.cr0,
            out.out_cr4,
            out.out_efer,
            out.dr7,
            out.sysenter,
            out.probes,
        );
    }
}

/// A line of the log. The instruction length is undefined for exits that no instruction caused.
struct Logged<'a>(&'a ExitLog);

impl core::fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [reason, qualification, event, error, length, eip, eax, ebx] = *self.0;
        write!(f, "reason {reason:x} q {qualification:x}")?;
        if event >> 31 != 0 {
            write!(f, " event {event:x}")?;
            if event & 1 << 11 != 0 {
                write!(f, "/{error:x}")?;
            }
        } else if !matches!(reason, 48 | 49) && reason >> 31 == 0 {
            write!(f, " len {length}")?;
        }
        write!(f, " eip {eip:x} eax {eax:x} ebx {ebx:x}")
    }
}

/// L2 in a mode: every exit of a tour with L1 resuming, a page fault, an EPT violation.
fn tours(lab: &mut Lab<'_>, kind: Kind, mode: Mode, with_ept: bool) {
    let name = mode.name();
    let ept = if with_ept { "ept" } else { "no-ept" };
    let what = kind.name();
    lab.prepare(kind, mode, with_ept, &tour(), |_| {});
    let case = Case {
        passes: 12,
        ..lab.case(kind, VMLAUNCH)
    };
    let out = lab.run(format_args!("{what} {name} {ept} tour"), &case);
    lab.show_host(&out);
    if !mode.is_16_bit() && mode != Mode::Flat32 {
        for (mask, match_) in [(0, 0), (2, 2), (2, 0), (1, 1)] {
            lab.prepare(kind, mode, with_ept, &page_fault(), |_| {
                write(field::PAGE_FAULT_ERROR_CODE_MASK, mask);
                write(field::PAGE_FAULT_ERROR_CODE_MATCH, match_);
            });
            let case = lab.case(kind, VMLAUNCH);
            lab.run(
                format_args!("{what} {name} {ept} page fault {mask} {match_}"),
                &case,
            );
        }
    }
    if with_ept {
        for rights in [0, 1, 2, 4, 5] {
            lab.prepare(kind, mode, true, &touch(), |vm| {
                vm.ept()
                    .map(layout::DATA, vm.memory.address() + layout::DATA, rights);
            });
            let case = lab.case(kind, VMLAUNCH);
            lab.run(format_args!("{what} {name} ept rights {rights}"), &case);
        }
    }
}

/// What an exit makes of L1.
fn host_state(lab: &mut Lab<'_>, kind: Kind) {
    let what = kind.name();
    let changes: [(&str, &[(Field, u64)]); 14] = [
        ("plain", &[]),
        (
            "data null",
            &[
                (field::HOST_ES_SELECTOR, 0),
                (field::HOST_FS_SELECTOR, 0),
                (field::HOST_GS_SELECTOR, 0),
            ],
        ),
        // The descriptors are not read: limits and types become flat.
        (
            "data small",
            &[
                (field::HOST_DS_SELECTOR, SMALL as u64),
                (field::HOST_ES_SELECTOR, SMALL as u64),
            ],
        ),
        ("stack small", &[(field::HOST_SS_SELECTOR, SMALL as u64)]),
        ("stack 16-bit", &[(field::HOST_SS_SELECTOR, DATA16 as u64)]),
        (
            "stack read-only",
            &[(field::HOST_SS_SELECTOR, READ_ONLY as u64)],
        ),
        (
            "code based",
            &[(field::HOST_CS_SELECTOR, BASED_CODE as u64)],
        ),
        ("code 16-bit", &[(field::HOST_CS_SELECTOR, CODE16 as u64)]),
        (
            "code conforming",
            &[(field::HOST_CS_SELECTOR, CONFORMING as u64)],
        ),
        (
            "beyond the table",
            &[
                (field::HOST_CS_SELECTOR, 0xfff8),
                (field::HOST_DS_SELECTOR, 0xfff0),
            ],
        ),
        (
            "fs, gs",
            &[
                (field::HOST_FS_SELECTOR, OTHER_BASE as u64),
                (field::HOST_GS_SELECTOR, FLAT as u64),
                (field::HOST_FS_BASE, at(DATA) as u64 + 8),
                (field::HOST_GS_BASE, at(DATA) as u64 + 16),
            ],
        ),
        (
            "sysenter",
            &[
                (field::HOST_IA32_SYSENTER_CS, 0x5678),
                (field::HOST_IA32_SYSENTER_ESP, 0x7fff_1234_5678),
                (field::HOST_IA32_SYSENTER_EIP, 0x8765_4321),
            ],
        ),
        ("esp wide", &[(field::HOST_RSP, 0)]),
        ("task null", &[(field::HOST_TR_SELECTOR, 0)]),
    ];
    for (name, fields) in changes {
        lab.bench.data.fill(0);
        for n in 0..8u32 {
            lab.bench.data.write(u64::from(n) * 4, 0x1111_1111 * n);
        }
        lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |_| {
            for (field, value) in fields {
                let value = match name {
                    "esp wide" => u64::from(stack_top()) | 0x1234 << 32,
                    _ => *value,
                };
                write(*field, value);
            }
        });
        let out = lab.run(
            format_args!("{what} host {name}"),
            &lab.case(kind, VMLAUNCH),
        );
        lab.show_host(&out);
    }
    // L1 comes back with another kind of paging than it left with.
    for other in Kind::ALL {
        for (mode, ept) in [
            (Mode::Pae, false),
            (Mode::Prot32, false),
            (Mode::Real, true),
        ] {
            if other == kind || !lab.vm.can(mode, ept) {
                continue;
            }
            let host = lab.bench.job(&lab.case(other, VMLAUNCH));
            lab.prepare(kind, mode, ept, &call_vmm(), |_| {
                write(field::HOST_CR3, host.cr3.into());
                write(field::HOST_CR4, host.cr4.into());
            });
            let id = format_args!("{what} {} host now {}", mode.name(), other.name());
            let out = lab.run(id, &lab.case(kind, VMLAUNCH));
            lab.show_host(&out);
        }
    }
    // IA32_EFER: loaded, or left but for LMA and LME.
    for (name, before, loads) in [
        ("left", NO_EXECUTE, false),
        ("loaded", 0, true),
        ("left 0", 0, false),
    ] {
        if loads && !lab.bench.caps.offers_exit(ExitCtl::LOAD_EFER) {
            continue;
        }
        lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |vm| {
            if loads {
                write(field::HOST_IA32_EFER, NO_EXECUTE.into());
            } else {
                vm.exit_controls(ExitCtl::empty(), ExitCtl::LOAD_EFER);
                vm.entry_controls(Entry::empty(), Entry::LOAD_EFER);
            }
        });
        let case = Case {
            efer: before,
            ..lab.case(kind, VMLAUNCH)
        };
        let out = lab.run(format_args!("{what} host efer {name}"), &case);
        lab.show_host(&out);
    }
}

/// Entries that fail: what only a 64-bit L1 may ask for, host state, guest state, MSR loading.
fn failures(lab: &mut Lab<'_>, kind: Kind) {
    let what = kind.name();
    let loads_efer = lab.bench.caps.offers_exit(ExitCtl::LOAD_EFER);
    for (name, mode, exit, entry) in [
        (
            "host 64-bit",
            Mode::Prot32,
            ExitCtl::HOST_ADDRESS_SPACE_SIZE,
            Entry::empty(),
        ),
        (
            "guest 64-bit",
            Mode::Prot32,
            ExitCtl::empty(),
            Entry::IA32E_MODE_GUEST,
        ),
        (
            "both 64-bit",
            Mode::Prot32,
            ExitCtl::HOST_ADDRESS_SPACE_SIZE,
            Entry::IA32E_MODE_GUEST,
        ),
        (
            "long guest, host 64-bit",
            Mode::Long,
            ExitCtl::HOST_ADDRESS_SPACE_SIZE,
            Entry::empty(),
        ),
        (
            "compat guest",
            Mode::Compat,
            ExitCtl::empty(),
            Entry::empty(),
        ),
    ] {
        for efer in [0, 0x500] {
            lab.prepare(kind, mode, false, &call_vmm(), |vm| {
                vm.exit_controls(exit, ExitCtl::empty());
                vm.entry_controls(entry, Entry::empty());
                if loads_efer {
                    write(field::HOST_IA32_EFER, efer);
                }
            });
            lab.run(
                format_args!("{what} fails, {name}, efer {efer:x}"),
                &lab.case(kind, VMLAUNCH),
            );
        }
    }
    let changes: [(&str, Field, u64); 13] = [
        ("cs 0", field::HOST_CS_SELECTOR, 0),
        ("ss 0", field::HOST_SS_SELECTOR, 0),
        ("cs rpl", field::HOST_CS_SELECTOR, CODE32 as u64 | 3),
        ("ds ti", field::HOST_DS_SELECTOR, FLAT as u64 | 4),
        ("rip wide", field::HOST_RIP, 0x1_0000_0000),
        (
            "rip wide, canonical",
            field::HOST_RIP,
            0xffff_8000_0000_0000,
        ),
        ("fs base not canonical", field::HOST_FS_BASE, 1 << 63),
        (
            "tr base not canonical",
            field::HOST_TR_BASE,
            0x8000_0000_0000,
        ),
        ("cr4 without VMXE", field::HOST_CR4, 0x20),
        ("cr4 with PCIDE", field::HOST_CR4, 0x2_2020),
        ("cr0 without PG", field::HOST_CR0, 0x21),
        ("cr3 too wide", field::HOST_CR3, 1 << 52),
        (
            "sysenter not canonical",
            field::HOST_IA32_SYSENTER_EIP,
            1 << 63,
        ),
    ];
    for (name, field, value) in changes {
        lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |_| {
            write(field, value)
        });
        lab.run(
            format_args!("{what} fails, host {name}"),
            &lab.case(kind, VMLAUNCH),
        );
    }
    let changes: [(&str, Field, u64); 6] = [
        ("cr3 too wide", field::GUEST_CR3, 1 << 52),
        ("rflags bit 1", field::GUEST_RFLAGS, 0),
        ("cs type", field::GUEST_CS_ACCESS_RIGHTS, 0xc093),
        ("activity", field::GUEST_ACTIVITY_STATE, 9),
        ("link pointer", field::VMCS_LINK_POINTER, 0x1000),
        ("msr load", field::VM_ENTRY_MSR_LOAD_COUNT, 1),
    ];
    for (name, field, value) in changes {
        let list = lab.bench.ends.address();
        lab.bench.ends.fill(0);
        // IA32_FS_BASE may not be in the list.
        lab.bench.ends.write(0, 0xc000_0100u32);
        lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |_| {
            write(field::VM_ENTRY_MSR_LOAD_ADDRESS, list);
            write(field, value);
        });
        let out = lab.run(
            format_args!("{what} fails, guest {name}"),
            &lab.case(kind, VMLAUNCH),
        );
        lab.show_host(&out);
    }
}

/// VMLAUNCH and VMRESUME themselves: privilege level, width of the code segment, launch state, MOV SS.
fn instructions(lab: &mut Lab<'_>, kind: Kind) {
    let what = kind.name();
    let again = Bytes::of(&[VMRESUME]);
    let blocked = Bytes::of(&[&[0x8e, 0xd0], VMLAUNCH]);
    let prefixed = Bytes::of(&[&[0x66], VMLAUNCH]);
    for (name, bytes, cs, user) in [
        ("resume of a clear VMCS", &*again, CODE32, false),
        ("launch after mov ss", &*blocked, CODE32, false),
        ("launch in 16-bit code", VMLAUNCH, CODE16, false),
        ("launch with prefix 66", &*prefixed, CODE32, false),
        ("launch at level 3", VMLAUNCH, USER_CODE32, true),
    ] {
        lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |_| {});
        let mut case = lab.case(kind, bytes);
        case.frame.cs = cs;
        case.gprs.eax = FLAT;
        if cs == CODE16 {
            case.frame.eip = 0;
        }
        if user {
            case.frame.ss = USER_FLAT;
        }
        lab.run(format_args!("{what} {name}"), &case);
    }
    // The state of L2 as it was saved.
    lab.prepare(kind, Mode::Prot32, false, &call_vmm(), |_| {});
    let out = lab.bench.run(&lab.case(kind, VMLAUNCH));
    let own = lab.vm.vmcs;
    lab.bench.in_long_mode(&own, || {
        for field in [
            field::GUEST_CR0,
            field::GUEST_CR4,
            field::GUEST_RFLAGS,
            field::GUEST_CS_ACCESS_RIGHTS,
            field::GUEST_SS_ACCESS_RIGHTS,
            field::GUEST_CS_LIMIT,
            field::GUEST_RSP,
            field::GUEST_DR7,
            field::VM_ENTRY_CONTROLS,
        ] {
            case!(
                "{what} after exit {}: {} {:x}",
                out.vector,
                field.name(),
                read(field)
            );
        }
    });
}
