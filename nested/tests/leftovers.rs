//! What one VM entry or exit leaves behind for the next.

mod model;

use model::*;
use umbra_nested::{Done, L2Done, Nested};
use umbra_vmcs::Field;
use umbra_vmcs::controls::Proc;
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

const MONITOR_TRAP_FLAG: u64 = 1 << 27;
const USE_MSR_BITMAPS: u64 = 1 << 28;
const PROC: u64 = 0x0400_6172;
const BITMAP: u64 = 0xb000;
const GS_BASE: u32 = umbra_arch::msr::IA32_GS_BASE;
const GS_BASE_BIT: u64 = BITMAP + 0xc00 + 0x101 / 8;

fn enc(f: Field) -> u64 {
    f.encoding().into()
}

fn write(hw: &mut Machine, nested: &mut Nested, fields: &[(Field, u64)]) {
    for (f, value) in fields {
        vmwrite(hw, nested, enc(*f), *value);
    }
}

fn run(hw: &mut Machine, nested: &mut Nested, reason: Reason) {
    assert_eq!(nested.instruction(hw, reason), Done::Switched);
    assert!(nested.in_l2(), "{:?}", nested.take_broken_rule());
}

fn launched(fields: &[(Field, u64)]) -> (Machine, Nested) {
    let (mut hw, mut nested) = with_valid_vmcs();
    write(&mut hw, &mut nested, fields);
    run(&mut hw, &mut nested, Reason::Vmlaunch);
    (hw, nested)
}

/// The exit of an MSR access by L2.
fn msr_exit(hw: &mut Machine, reason: Reason, index: u32, value: u64) {
    hw.gprs[1] = index.into();
    hw.gprs[0] = value & 0xffff_ffff;
    hw.gprs[2] = value >> 32;
    let length = [(field::VM_EXIT_INSTRUCTION_LENGTH, 2)];
    exit_from_l2(hw, reason as u32, &length);
}

/// State that is saved and loaded goes on where L2 left it, whether or not L1
/// has looked at it in between.
#[test]
fn what_an_exit_saves_the_next_entry_loads() {
    let save_debug_pat_timer = 0x0003_6dfb | 1 << 9 | 1 << 2 | 1 << 18 | 1 << 22;
    let load_debug_pat = 0x11fb | 1 << 9 | 1 << 2 | 1 << 14;
    let (mut hw, mut nested) = launched(&[
        (field::PRIMARY_VM_EXIT_CONTROLS, save_debug_pat_timer),
        (field::VM_ENTRY_CONTROLS, load_debug_pat),
        (field::PIN_BASED_CONTROLS, 0x16 | 1 << 6),
        (field::VMX_PREEMPTION_TIMER_VALUE, 5000),
    ]);
    let left = [
        (field::GUEST_DR7, 0x401),
        (field::GUEST_IA32_DEBUGCTL, 1),
        (field::GUEST_IA32_PAT, 0x0101_0101_0101_0101),
        (field::VMX_PREEMPTION_TIMER_VALUE, 77),
    ];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &left);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    run(&mut hw, &mut nested, Reason::Vmresume);
    for (f, value) in left {
        assert_eq!(hw.read(f), value, "{f:?}");
    }
}

/// State that is saved and not loaded: L2 gets L1's, L1 reads what was saved.
#[test]
fn what_an_exit_saves_l1_reads_though_the_entry_fails() {
    let save_debug = 0x0003_6dfb | 1 << 9 | 1 << 2;
    let without_load_debug = 0x11fb | 1 << 9;
    let (mut hw, mut nested) = launched(&[
        (field::PRIMARY_VM_EXIT_CONTROLS, save_debug),
        (field::VM_ENTRY_CONTROLS, without_load_debug),
    ]);
    let left = [
        (field::GUEST_DR7, 0x403),
        (field::GUEST_IA32_SYSENTER_CS, 8),
    ];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &left);
    l2_exit(&mut hw, &mut nested);
    // The list changes SYSENTER_CS, and then fails.
    let list = 0x9000_u64;
    for (n, word) in [0x174_u64, 0x20, 0xdead, 2].into_iter().enumerate() {
        hw.poke(list + 8 * n as u64, &word.to_le_bytes());
    }
    let f = [
        (field::VM_ENTRY_MSR_LOAD_ADDRESS, list),
        (field::VM_ENTRY_MSR_LOAD_COUNT, 2),
    ];
    write(&mut hw, &mut nested, &f);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmresume),
        Done::Switched
    );
    assert!(!nested.in_l2());
    for (f, value) in left {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
    write(&mut hw, &mut nested, &[(field::VM_ENTRY_MSR_LOAD_COUNT, 0)]);
    run(&mut hw, &mut nested, Reason::Vmresume);
    assert_eq!(hw.read(field::GUEST_IA32_SYSENTER_CS), 8);
}

/// An entry that fails in its MSR list leaves L2's state as the last exit did, though L1 has
/// looked at none of it; so does one that the CPU itself refuses.
#[test]
fn a_failed_entry_loses_nothing_that_l1_has_not_read() {
    let fail: [fn(&mut Machine, &mut Nested); 3] = [
        |hw, nested| {
            hw.poke(0x9000, &0xdead_u64.to_le_bytes());
            let list = [
                (field::VM_ENTRY_MSR_LOAD_ADDRESS, 0x9000),
                (field::VM_ENTRY_MSR_LOAD_COUNT, 1),
            ];
            write(hw, nested, &list);
            assert_eq!(nested.instruction(hw, Reason::Vmresume), Done::Switched);
            assert!(!nested.in_l2());
            write(hw, nested, &[(field::VM_ENTRY_MSR_LOAD_COUNT, 0)]);
        },
        |hw, nested| {
            run(hw, nested, Reason::Vmresume);
            hw.write(field::EXIT_REASON, 1 << 31 | 33);
            assert_eq!(l2_exit(hw, nested), L2Done::Reflected);
        },
        |hw, nested| {
            run(hw, nested, Reason::Vmresume);
            nested.l2_vmfail(hw, 7);
        },
    ];
    let left = [
        (field::GUEST_IDTR_BASE, 0x5000),
        (field::GUEST_IDTR_LIMIT, 0x1ff),
        (field::GUEST_FS_BASE, 0x1234),
        (field::GUEST_IA32_SYSENTER_CS, 8),
    ];
    for fail in fail {
        for is_read in [false, true] {
            let (mut hw, mut nested) = launched(&[]);
            exit_from_l2(&mut hw, Reason::Vmcall as u32, &left);
            assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
            fail(&mut hw, &mut nested);
            if is_read {
                for (f, value) in left {
                    assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
                }
            }
            run(&mut hw, &mut nested, Reason::Vmresume);
            for (f, value) in left {
                assert_eq!(hw.read(f), value, "{f:?}");
            }
        }
    }
}

/// PDPTEs that L0 loads for an L2 without EPT do not stand for those that an exit saved.
#[test]
fn pdptes_that_an_exit_saved_outlive_an_entry_without_ept() {
    let (mut hw, mut nested) = launched(&[
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, PROC | 1 << 31),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, 1 << 1),
        (field::EPT_POINTER, 0x2_001e),
    ]);
    let saved = [(field::GUEST_PDPTE0, 0x7001), (field::GUEST_PDPTE3, 0x8001)];
    exit_from_l2(&mut hw, Reason::Vmcall as u32, &saved);
    l2_exit(&mut hw, &mut nested);
    // PAE paging, no EPT: the PDPTEs come from memory, where they are 0.
    let pae = [
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, 0),
        (field::VM_ENTRY_CONTROLS, 0x11fb),
        (field::GUEST_CS_ACCESS_RIGHTS, 0xc09b),
        (field::GUEST_CR3, 0x1_2000),
        (field::GUEST_IA32_EFER, 0),
    ];
    write(&mut hw, &mut nested, &pae);
    run(&mut hw, &mut nested, Reason::Vmresume);
    assert_eq!(hw.read(field::GUEST_PDPTE0), 0);
    exit_from_l2(&mut hw, Reason::Vmcall as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    for (f, value) in saved {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
}

/// L1 may clear a bit of its bitmap after L0 has merged it: the MSR is then
/// L2's own in vmcs02, never the CPU's.
#[test]
fn an_msr_that_vmcs02_holds_never_reaches_the_cpu() {
    for (index, f, value) in [
        (GS_BASE, field::GUEST_GS_BASE, 0x1234),
        (0xc000_0080, field::GUEST_IA32_EFER, 0x501),
        (0x277, field::GUEST_IA32_PAT, 0x0606_0606_0606_0606),
        (0x1d9, field::GUEST_IA32_DEBUGCTL, 1),
        (0x175, field::GUEST_IA32_SYSENTER_ESP, 0x5678),
    ] {
        let (mut hw, mut nested) = launched(&[
            (
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                PROC | USE_MSR_BITMAPS,
            ),
            (field::MSR_BITMAP, BITMAP),
        ]);
        msr_exit(&mut hw, Reason::Wrmsr, index, value);
        assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
        assert!(!hw.msrs.contains_key(&index), "{index:#x}");
        assert_eq!(hw.read(f), value, "{index:#x}");
        msr_exit(&mut hw, Reason::Rdmsr, index, 0);
        assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
        assert_eq!(hw.gprs[0], value & 0xffff_ffff);
    }
}

/// An MSR that neither L1 nor L0 intercepts: L2 executes its instruction again, with the way open.
#[test]
fn the_first_access_opens_the_bitmap() {
    let (mut hw, mut nested) = launched(&[
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            PROC | USE_MSR_BITMAPS,
        ),
        (field::MSR_BITMAP, BITMAP),
    ]);
    hw.opens_msrs = true;
    msr_exit(&mut hw, Reason::Wrmsr, GS_BASE, 0x1234);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert_eq!(hw.read(field::GUEST_RIP), 0x60_0000);
    assert!(!hw.msrs.contains_key(&GS_BASE));
    let opened = format!("open {BITMAP:#x} {GS_BASE:#x} true");
    assert!(hw.log.contains(&opened), "{:?}", hw.log);
    hw.log.clear();
    hw.poke(GS_BASE_BIT, &[1 << 1]);
    msr_exit(&mut hw, Reason::Wrmsr, GS_BASE, 0x1234);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    assert!(!hw.log.contains(&opened));
}

#[test]
fn an_intercepted_msr_is_l1s() {
    let (mut hw, mut nested) = launched(&[
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            PROC | USE_MSR_BITMAPS,
        ),
        (field::MSR_BITMAP, BITMAP),
    ]);
    hw.poke(GS_BASE_BIT, &[1 << 1]);
    msr_exit(&mut hw, Reason::Wrmsr, GS_BASE, 0x1234);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
}

/// A fault that L0 raises for L2 looks like the CPU's: RF in the image, and no
/// error code in real mode.
#[test]
fn a_fault_raised_for_l2_is_as_the_cpus() {
    for (pe, info) in [(1, 0x8000_0b0d), (0, 0x8000_030d)] {
        let (mut hw, mut nested) = launched(&[
            (
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                PROC | USE_MSR_BITMAPS,
            ),
            (field::MSR_BITMAP, BITMAP),
        ]);
        let cr0 = hw.read(field::GUEST_CR0) & !1 | pe;
        hw.write(field::GUEST_CR0, cr0);
        // The machine of arrays refuses this MSR's number.
        msr_exit(&mut hw, Reason::Rdmsr, 0x1fff, 0);
        assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
        assert_eq!(hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION), info);
        assert_eq!(hw.read(field::GUEST_RFLAGS), 2 | 1 << 16);
        assert_eq!(hw.read(field::GUEST_RIP), 0x60_0000);
    }
}

/// The exit of such a fault: its error code is L0's, not an earlier exit's.
#[test]
fn a_fault_that_l1_wants_has_its_own_error_code() {
    let (mut hw, mut nested) = launched(&[
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            PROC | USE_MSR_BITMAPS,
        ),
        (field::MSR_BITMAP, BITMAP),
        (field::EXCEPTION_BITMAP, 1 << 13),
    ]);
    let earlier = [(field::VM_EXIT_INTERRUPTION_ERROR_CODE, 0x77)];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &earlier);
    l2_exit(&mut hw, &mut nested);
    run(&mut hw, &mut nested, Reason::Vmresume);
    msr_exit(&mut hw, Reason::Rdmsr, 0x1fff, 0);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    for (f, value) in [
        (field::VM_EXIT_INTERRUPTION_INFORMATION, 0x8000_0b0d),
        (field::VM_EXIT_INTERRUPTION_ERROR_CODE, 0),
        (field::GUEST_RFLAGS, 2 | 1 << 16),
    ] {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
}

/// An instruction that L0 carries out ends as any other: RF and blocking by
/// STI and MOV SS go, a single step is due, the monitor trap flag exits.
#[test]
fn an_instruction_carried_out_for_l2_ends_as_on_a_cpu() {
    for (mtf, btf) in [(0, 0), (0, 2), (MONITOR_TRAP_FLAG, 0)] {
        let (mut hw, mut nested) = launched(&[
            (
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                PROC | USE_MSR_BITMAPS | mtf,
            ),
            (field::MSR_BITMAP, BITMAP),
        ]);
        hw.msrs.insert(0x1b, 5);
        msr_exit(&mut hw, Reason::Rdmsr, 0x1b, 0);
        for (f, value) in [
            (field::GUEST_RFLAGS, 2 | 1 << 8 | 1 << 16),
            (field::GUEST_INTERRUPTIBILITY_STATE, 2),
            (field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0),
            (field::GUEST_IA32_DEBUGCTL, btf),
            (field::IDT_VECTORING_INFORMATION, 0),
        ] {
            hw.write(f, value);
        }
        let done = l2_exit(&mut hw, &mut nested);
        assert_eq!(hw.gprs[0], 5);
        let pending = if btf == 0 { 1 << 14 } else { 0 };
        let after = [
            (field::GUEST_RIP, 0x60_0002),
            (field::GUEST_RFLAGS, 2 | 1 << 8),
            (field::GUEST_INTERRUPTIBILITY_STATE, 0),
            (field::GUEST_PENDING_DEBUG_EXCEPTIONS, pending),
        ];
        if mtf == 0 {
            assert_eq!(done, L2Done::Resume);
            for (f, value) in after {
                assert_eq!(hw.read(f), value, "{f:?}");
            }
            continue;
        }
        assert_eq!(done, L2Done::Reflected);
        let exit = [
            (field::EXIT_REASON, Reason::MonitorTrapFlag as u64),
            (field::EXIT_QUALIFICATION, 0),
            (field::VM_EXIT_INTERRUPTION_INFORMATION, 0),
        ];
        for (f, value) in after.into_iter().chain(exit) {
            assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
        }
    }
}

/// An INIT that VMX root operation blocked exits before L2's first
/// instruction, and behind the event of the entry, which is delivered.
#[test]
fn a_blocked_init_exits_at_once_behind_the_event() {
    let (mut hw, mut nested) = launched(&[]);
    let junk = [
        (field::EXIT_QUALIFICATION, 0x1234),
        (field::IDT_VECTORING_INFORMATION, 0x8000_0020),
    ];
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &junk);
    hw.write(field::EXIT_REASON, Reason::Cpuid as u64);
    l2_exit(&mut hw, &mut nested);
    let event = [
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0x8000_0b0e),
        (field::VM_ENTRY_EXCEPTION_ERROR_CODE, 6),
    ];
    write(&mut hw, &mut nested, &event);
    nested.latch_init();
    let trap = u64::from(Proc::MONITOR_TRAP_FLAG.bits());
    let controls = |hw: &mut Machine| hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
    run(&mut hw, &mut nested, Reason::Vmresume);
    let injected = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
    assert_eq!((injected, controls(&mut hw) & trap), (0x8000_0b0e, trap));
    // The delivery exits to L1 first: INIT stays blocked.
    let vectoring = [(field::IDT_VECTORING_INFORMATION, 0x8000_0b0e)];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &vectoring);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    write(&mut hw, &mut nested, &event);
    run(&mut hw, &mut nested, Reason::Vmresume);
    assert_eq!(controls(&mut hw) & trap, trap);
    let delivered = [
        (field::IDT_VECTORING_INFORMATION, 0),
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0xb0e),
    ];
    exit_from_l2(&mut hw, Reason::MonitorTrapFlag as u32, &delivered);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    for (f, value) in [
        (field::EXIT_REASON, Reason::Init as u64),
        (field::VM_EXIT_INTERRUPTION_INFORMATION, 0),
        (field::IDT_VECTORING_INFORMATION, 0),
        (field::VM_ENTRY_INTERRUPTION_INFORMATION, 0xb0e),
    ] {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
    run(&mut hw, &mut nested, Reason::Vmresume);
    let left = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
    assert_eq!((left & 1 << 31, controls(&mut hw) & trap), (0, 0));
}

/// Without an event, or with a pending MTF exit, which comes after it, a blocked
/// INIT exits at once, and not from the wait-for-SIPI state.
#[test]
fn a_blocked_init_exits_before_a_pending_mtf_exit() {
    for event in [0, 0x8000_0700] {
        let (mut hw, mut nested) = launched(&[]);
        exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
        l2_exit(&mut hw, &mut nested);
        write(
            &mut hw,
            &mut nested,
            &[(field::VM_ENTRY_INTERRUPTION_INFORMATION, event)],
        );
        nested.latch_init();
        assert_eq!(
            nested.instruction(&mut hw, Reason::Vmresume),
            Done::Switched
        );
        assert!(!nested.in_l2());
        for (f, value) in [
            (field::EXIT_REASON, Reason::Init as u64),
            (field::IDT_VECTORING_INFORMATION, 0),
            (
                field::VM_ENTRY_INTERRUPTION_INFORMATION,
                event & 0x7fff_ffff,
            ),
        ] {
            assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
        }
    }
    let (mut hw, mut nested) = launched(&[]);
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    write(&mut hw, &mut nested, &[(field::GUEST_ACTIVITY_STATE, 3)]);
    nested.latch_init();
    run(&mut hw, &mut nested, Reason::Vmresume);
}

/// VTPR may fall while L2 runs: an entry that L1 did not ask for is not refused
/// for it, L2's next MOV to CR8 exits as it would have, and L1's next entry has
/// its own threshold.
#[test]
fn l0_resumes_l2_below_the_tpr_threshold() {
    const PAGE: u64 = 0x9000;
    const CR8_LOAD: u64 = Proc::CR8_LOAD_EXITING.bits() as u64;
    let below = || {
        let (mut hw, mut nested) = with_valid_vmcs();
        hw.poke(PAGE + 0x80, &[0x50]);
        let proc = vmread(
            &mut hw,
            &mut nested,
            enc(field::PRIMARY_PROCESSOR_BASED_CONTROLS),
        );
        let fields = [
            (
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                proc | u64::from(Proc::USE_TPR_SHADOW.bits()),
            ),
            (field::VIRTUAL_APIC_ADDRESS, PAGE),
            (field::TPR_THRESHOLD, 5),
        ];
        write(&mut hw, &mut nested, &fields);
        run(&mut hw, &mut nested, Reason::Vmlaunch);
        assert_eq!(hw.read(field::TPR_THRESHOLD), 5);
        hw.poke(PAGE + 0x80, &[0x20]);
        nested.after_own_exit(&mut hw);
        assert_eq!(hw.read(field::TPR_THRESHOLD), 2);
        let controls = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
        assert_eq!(controls & CR8_LOAD, CR8_LOAD);
        (hw, nested)
    };
    // MOV CR8, RCX.
    let cr8 = [
        (field::EXIT_QUALIFICATION, 0x108),
        (field::VM_EXIT_INSTRUCTION_LENGTH, 4),
    ];
    for (value, done) in [(4, L2Done::Reflected), (5, L2Done::Resume)] {
        let (mut hw, mut nested) = below();
        hw.gprs[1] = value;
        let rip = hw.read(field::GUEST_RIP);
        exit_from_l2(&mut hw, Reason::CrAccess as u32, &cr8);
        assert_eq!(l2_exit(&mut hw, &mut nested), done);
        let mut vtpr = [0; 4];
        hw.peek(PAGE + 0x80, &mut vtpr);
        assert_eq!(u32::from_le_bytes(vtpr), (value as u32) << 4);
        if done == L2Done::Resume {
            assert_eq!(hw.read(field::GUEST_RIP), rip + 4);
            let controls = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
            assert_eq!((hw.read(field::TPR_THRESHOLD), controls & CR8_LOAD), (5, 0));
        } else {
            let reason = vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
            assert_eq!(reason, Reason::TprBelowThreshold as u64);
            assert_eq!(vmread(&mut hw, &mut nested, enc(field::GUEST_RIP)), rip + 4);
            hw.poke(PAGE + 0x80, &[0x60]);
            run(&mut hw, &mut nested, Reason::Vmresume);
            assert_eq!(hw.read(field::TPR_THRESHOLD), 5);
        }
    }
    let (mut hw, mut nested) = below();
    hw.gprs[1] = 0x10;
    exit_from_l2(&mut hw, Reason::CrAccess as u32, &cr8);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    let event = hw.read(field::VM_ENTRY_INTERRUPTION_INFORMATION);
    assert_eq!(event, 0x8000_0b0d);
    // It fell after the look at it: once more, with no threshold.
    assert_eq!(nested.l2_vmfail(&mut hw, 7), Some(L2Done::Resume));
    assert_eq!(hw.read(field::TPR_THRESHOLD), 0);
    // And for no reason that L0 knows of: L2 is at its end, L1's instruction is not.
    assert_eq!(nested.l2_vmfail(&mut hw, 7), Some(L2Done::Reflected));
    let reason = vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
    assert_eq!(reason, Reason::TripleFault as u64);
}

/// A VMLAUNCH that only the CPU refuses leaves the VMCS clear.
#[test]
fn a_refused_launch_can_be_launched_again() {
    let refused: [fn(&mut Machine, &mut Nested); 2] = [
        |hw, nested| assert_eq!(nested.l2_vmfail(hw, 7), None),
        |hw, nested| {
            exit_from_l2(hw, 1 << 31 | 33, &[]);
            assert_eq!(l2_exit(hw, nested), L2Done::Reflected);
        },
    ];
    for refuse in refused {
        let (mut hw, mut nested) = with_valid_vmcs();
        hw.write(field::EXIT_REASON, Reason::Vmlaunch as u64);
        run(&mut hw, &mut nested, Reason::Vmlaunch);
        refuse(&mut hw, &mut nested);
        assert!(!nested.in_l2());
        run(&mut hw, &mut nested, Reason::Vmlaunch);
    }
}

/// An exit for an NMI of L0's own does not start the preemption timer anew.
#[test]
fn the_timer_goes_on_over_an_exit_for_an_nmi() {
    let (mut hw, mut nested) = launched(&[
        (field::PIN_BASED_CONTROLS, 0x16 | 1 << 6),
        (field::VMX_PREEMPTION_TIMER_VALUE, 500),
    ]);
    hw.tsc += 100 << (nested.caps.misc & 0x1f);
    nested.after_own_exit(&mut hw);
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), 400);
}

/// L2 may be let through to an MTRR: the types of what it runs on change with it,
/// not at the next entry.
#[test]
fn an_mtrr_written_by_l2_counts_at_once() {
    let (mut hw, mut nested) = launched(&[
        (
            field::PRIMARY_PROCESSOR_BASED_CONTROLS,
            PROC | USE_MSR_BITMAPS | 1 << 31,
        ),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, 1 << 1),
        (field::EPT_POINTER, 0x2_001e),
        (field::MSR_BITMAP, BITMAP),
    ]);
    msr_exit(&mut hw, Reason::Wrmsr, 0x2ff, 0xc06);
    hw.is_ept01_changed = true;
    hw.log.clear();
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert!(!hw.is_ept01_changed);
    assert!(
        hw.log.iter().any(|l| l.starts_with("invept")),
        "{:?}",
        hw.log
    );
}

/// Without EPT in L1 the APIC-access page lies in ept01, which has large pages; with it, in ept12.
#[test]
fn the_apic_access_page_of_an_l2_on_ept01_is_small() {
    const USE_TPR_SHADOW: u64 = 1 << 21;
    const SECONDARY: u64 = 1 << 31;
    const PAGE: u64 = 0x12_3000;
    for (secondary, is_small) in [(0, false), (1, true), (3, false)] {
        let (hw, _) = launched(&[
            (
                field::PRIMARY_PROCESSOR_BASED_CONTROLS,
                PROC | USE_TPR_SHADOW | SECONDARY,
            ),
            (field::VIRTUAL_APIC_ADDRESS, 0x12_4000),
            (field::SECONDARY_PROCESSOR_BASED_CONTROLS, secondary),
            (field::APIC_ACCESS_ADDRESS, PAGE),
            (field::EPT_POINTER, 0x5_001e),
        ]);
        let found = hw.log.contains(&format!("small {PAGE:#x}"));
        assert_eq!(found, is_small, "{secondary}");
    }
}

/// The entry's list may set the TSC by which L0 knows when the preemption timer runs out.
#[test]
fn the_timer_counts_from_the_tsc_that_the_entry_loads() {
    const LIST: u64 = 0x9000;
    let (mut hw, mut nested) = with_valid_vmcs();
    for (n, word) in [0x10_u64, 0x1234_5678_0000].into_iter().enumerate() {
        hw.poke(LIST + 8 * n as u64, &word.to_le_bytes());
    }
    let fields = [
        (field::PIN_BASED_CONTROLS, 0x16 | 1 << 6),
        (field::VMX_PREEMPTION_TIMER_VALUE, 5000),
        (field::VM_ENTRY_MSR_LOAD_ADDRESS, LIST),
        (field::VM_ENTRY_MSR_LOAD_COUNT, 1),
    ];
    write(&mut hw, &mut nested, &fields);
    run(&mut hw, &mut nested, Reason::Vmlaunch);
    assert_eq!(hw.tsc, 0x1234_5678_0000);
    // An exit that L1 never sees, 100 units of the timer later.
    hw.tsc += 100 << (nested.caps.misc & 0x1f);
    exit_from_l2(&mut hw, Reason::EptViolation as u32, &[]);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Resume);
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), 4900);
}
