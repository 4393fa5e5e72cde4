//! What went wrong in other implementations of nested VMX, as tests. Each says
//! where.

mod model;

use model::*;
use umbra_arch::Exception;
use umbra_nested::{Done, L2Done, Nested};
use umbra_vmcs::Field;
use umbra_vmcs::exit::{ENTRY_FAILURE, Reason};
use umbra_vmcs::field;

const PIN: u64 = 0x16;
const PROC: u64 = 0x0400_6172;
const SECONDARY: u64 = 1 << 31;
const ENTRY: u64 = 0x11fb;
const IA32E_MODE_GUEST: u64 = 1 << 9;
const ENABLE_EPT: u64 = 1 << 1;
const UNRESTRICTED_GUEST: u64 = 1 << 7;
/// Four levels, write-back, at a page of zeros.
const EPTP: u64 = 0x2_001e;

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

/// KVM, CVE-2014-3645, CVE-2014-3646 and CVE-2018-12904; Xen, XSA-75: user code
/// executed VMX instructions, or met one without a handler.
#[test]
fn user_code_gets_gp_before_anything_else_is_looked_at() {
    for with_vmcs in [true, false] {
        for reason in [
            Reason::Vmxon,
            Reason::Vmxoff,
            Reason::Vmclear,
            Reason::Vmptrld,
            Reason::Vmptrst,
            Reason::Vmread,
            Reason::Vmwrite,
            Reason::Vmlaunch,
            Reason::Vmresume,
            Reason::Vmcall,
            Reason::Invept,
            Reason::Invvpid,
        ] {
            let (mut hw, mut nested) = in_vmx();
            if !with_vmcs {
                pointer(&mut hw, &mut nested, Reason::Vmclear, VMCS_REGION);
            }
            // An operand that is not mapped, which comes second.
            hw.memory_operand(0);
            hw.write(field::EXIT_QUALIFICATION, 1 << 40);
            hw.write(field::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
            let before = nested.current_pointer();
            let done = nested.instruction(&mut hw, reason);
            assert_eq!(done, Done::Fault(Exception::GP), "{reason:?}");
            assert_eq!(nested.current_pointer(), before, "{reason:?}");
            assert!(nested.in_vmx_operation() && !nested.in_l2());
        }
    }
}

/// KVM, CVE-2017-12154: CR8 exits were dropped. Whatever L1 wants to exit does.
#[test]
fn every_exit_that_l1_asks_for_is_in_vmcs02() {
    // HLT, INVLPG, MWAIT, RDPMC, RDTSC, CR3, CR8, MOV-DR, unconditional I/O,
    // monitor trap flag, MONITOR, PAUSE; NMI window with virtual NMIs.
    for bit in [7, 9, 10, 11, 12, 15, 16, 19, 20, 23, 24, 27, 29, 30, 22] {
        let (hw, _) = launched(&[
            (field::PIN_BASED_CONTROLS, PIN | 1 << 3 | 1 << 5),
            (field::PRIMARY_PROCESSOR_BASED_CONTROLS, PROC | 1 << bit),
            (field::EXCEPTION_BITMAP, 1 << bit),
        ]);
        let mut hw = hw;
        let proc = hw.read(field::PRIMARY_PROCESSOR_BASED_CONTROLS);
        assert_eq!(proc & !SECONDARY, PROC | 1 << bit);
        assert_eq!(hw.read(field::PIN_BASED_CONTROLS), PIN | 1 << 3 | 1 << 5);
        assert_eq!(hw.read(field::EXCEPTION_BITMAP), 1 << bit);
    }
}

/// KVM, CVE-2018-16882, and every hypervisor that hands an address of L1's to
/// the CPU: none may reach L0's memory.
#[test]
fn no_address_in_vmcs02_is_l0s() {
    let (mut hw, mut nested) = with_valid_vmcs();
    let addresses = [
        field::IO_BITMAP_A,
        field::IO_BITMAP_B,
        field::VIRTUAL_APIC_ADDRESS,
        field::APIC_ACCESS_ADDRESS,
        field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
    ];
    for (f, page) in addresses.into_iter().zip((HIDDEN.start..).step_by(0x1000)) {
        let value = match f {
            field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS => page | 0x40,
            _ => page,
        };
        vmwrite(&mut hw, &mut nested, enc(f), value);
    }
    run(&mut hw, &mut nested, Reason::Vmlaunch);
    for f in addresses {
        assert_eq!(hw.read(f) & !0xfff, VOID, "{f:?}");
    }
    for f in [
        field::PML_ADDRESS,
        field::VM_EXIT_MSR_STORE_ADDRESS,
        field::VM_EXIT_MSR_LOAD_ADDRESS,
        field::VM_ENTRY_MSR_LOAD_ADDRESS,
        field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
        field::EPTP_LIST_ADDRESS,
        field::VMREAD_BITMAP_ADDRESS,
        field::VMWRITE_BITMAP_ADDRESS,
    ] {
        assert_eq!(hw.read(f), 0, "{f:?}");
    }
}

/// Xen copied any activity state: L2's shutdown became the machine's.
#[test]
fn l2s_shutdown_is_not_l1s() {
    let (mut hw, mut nested) = launched(&[(field::GUEST_ACTIVITY_STATE, 2)]);
    assert_eq!(hw.read(field::GUEST_ACTIVITY_STATE), 2);
    exit_from_l2(&mut hw, Reason::TripleFault as u32, &[]);
    assert_eq!(l2_exit(&mut hw, &mut nested), L2Done::Reflected);
    assert_eq!(hw.read(field::GUEST_ACTIVITY_STATE), 0);
}

/// VMware leaves all ones where the control is 0, and an executive-VMCS pointer.
#[test]
fn what_no_control_uses_is_not_looked_at() {
    let unused = [
        (field::IO_BITMAP_A, u64::MAX),
        (field::IO_BITMAP_B, u64::MAX),
        (field::MSR_BITMAP, u64::MAX),
        (field::VIRTUAL_APIC_ADDRESS, u64::MAX),
        (field::APIC_ACCESS_ADDRESS, u64::MAX),
        (field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, u64::MAX),
        (field::EPT_POINTER, u64::MAX),
        (field::PML_ADDRESS, u64::MAX),
        (field::EXECUTIVE_VMCS_POINTER, 0x1234),
        (field::VM_ENTRY_MSR_LOAD_ADDRESS, u64::MAX),
        (field::SECONDARY_PROCESSOR_BASED_CONTROLS, u64::MAX),
    ];
    let (mut hw, mut nested) = launched(&unused);
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    for (f, value) in unused {
        let kept = vmread(&mut hw, &mut nested, enc(f));
        assert_eq!(kept, value & f.value_mask(), "{f:?}");
    }
}

/// Lists longer than a page, and a bad entry at their end.
#[test]
fn an_msr_list_may_be_longer_than_a_page() {
    const COUNT: u64 = 300;
    let (mut hw, mut nested) = with_valid_vmcs();
    let list = 0x3_0000;
    for n in 0..COUNT {
        let index: u64 = if n == COUNT - 1 { 0xdead } else { 0x10 };
        hw.poke(list + 16 * n, &index.to_le_bytes());
        hw.poke(list + 16 * n + 8, &n.to_le_bytes());
    }
    let fields = [
        (field::VM_ENTRY_MSR_LOAD_ADDRESS, list),
        (field::VM_ENTRY_MSR_LOAD_COUNT, COUNT),
    ];
    write(&mut hw, &mut nested, &fields);
    assert_eq!(
        nested.instruction(&mut hw, Reason::Vmlaunch),
        Done::Switched
    );
    assert!(!nested.in_l2());
    for (f, value) in [
        (field::EXIT_REASON, u64::from(ENTRY_FAILURE | 34)),
        (field::EXIT_QUALIFICATION, COUNT),
    ] {
        assert_eq!(vmread(&mut hw, &mut nested, enc(f)), value, "{f:?}");
    }
    assert_eq!(hw.msrs[&0x10], COUNT - 2);
}

/// An unrestricted L2 that leaves long mode: the control of vmcs12 follows, and
/// the next entry is one into protected mode.
#[test]
fn the_mode_of_l2_comes_back_in_the_entry_controls() {
    let (mut hw, mut nested) = launched(&[
        (field::PRIMARY_PROCESSOR_BASED_CONTROLS, PROC | SECONDARY),
        (
            field::SECONDARY_PROCESSOR_BASED_CONTROLS,
            ENABLE_EPT | UNRESTRICTED_GUEST,
        ),
        (field::EPT_POINTER, EPTP),
    ]);
    let left = [
        (field::GUEST_IA32_EFER, 0),
        (field::GUEST_CR0, 0x21),
        (field::GUEST_CS_ACCESS_RIGHTS, 0xc09b),
    ];
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &left);
    l2_exit(&mut hw, &mut nested);
    let controls = vmread(&mut hw, &mut nested, enc(field::VM_ENTRY_CONTROLS));
    assert_eq!(controls, ENTRY);
    run(&mut hw, &mut nested, Reason::Vmresume);
    assert_eq!(hw.read(field::VM_ENTRY_CONTROLS) & IA32E_MODE_GUEST, 0);
    assert_eq!(hw.read(field::GUEST_IA32_EFER) & 0x500, 0x100);
}

/// 32-bit guests with PAE paging died where their PDPTEs came from the wrong
/// place: from vmcs12 with EPT, from memory without.
#[test]
fn pdptes_come_from_vmcs12_with_ept_and_from_memory_without() {
    let table = 0x6_0020_u64;
    for has_ept in [true, false] {
        let (mut hw, mut nested) = with_valid_vmcs();
        for n in 0..4 {
            hw.poke(table + 8 * n, &((n + 8) << 12 | 1).to_le_bytes());
        }
        let secondary = if has_ept { ENABLE_EPT } else { 0 };
        write(
            &mut hw,
            &mut nested,
            &[
                (field::PRIMARY_PROCESSOR_BASED_CONTROLS, PROC | SECONDARY),
                (field::SECONDARY_PROCESSOR_BASED_CONTROLS, secondary),
                (field::EPT_POINTER, EPTP),
                (field::VM_ENTRY_CONTROLS, ENTRY),
                (field::GUEST_CR3, table),
                (field::GUEST_CS_ACCESS_RIGHTS, 0xc09b),
                (field::GUEST_PDPTE0, 0x1001),
                (field::GUEST_PDPTE1, 0x2001),
                (field::GUEST_PDPTE2, 0x3001),
                (field::GUEST_PDPTE3, 0x4001),
            ],
        );
        run(&mut hw, &mut nested, Reason::Vmlaunch);
        let expected = if has_ept { 0x1001 } else { 0x8001 };
        for (n, f) in [
            field::GUEST_PDPTE0,
            field::GUEST_PDPTE1,
            field::GUEST_PDPTE2,
            field::GUEST_PDPTE3,
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(hw.read(f), expected + (n as u64) * 0x1000, "{f:?}");
        }
    }
}

/// KVM, CVE-2019-7221: the timer of L2 outlived L2.
#[test]
fn the_timer_of_l2_ends_with_its_exit() {
    let (mut hw, mut nested) = launched(&[
        (field::PIN_BASED_CONTROLS, PIN | 1 << 6),
        (field::VMX_PREEMPTION_TIMER_VALUE, 10),
    ]);
    exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
    l2_exit(&mut hw, &mut nested);
    write(&mut hw, &mut nested, &[(field::PIN_BASED_CONTROLS, PIN)]);
    run(&mut hw, &mut nested, Reason::Vmresume);
    let before = hw.read(field::VMX_PREEMPTION_TIMER_VALUE);
    hw.tsc += 1 << 20;
    nested.after_own_exit(&mut hw);
    assert_eq!(hw.read(field::VMX_PREEMPTION_TIMER_VALUE), before);
    assert_eq!(hw.read(field::PIN_BASED_CONTROLS), PIN);
}

/// XMHF-64 did not mask VMFUNC and took its control word for an address: only
/// function 0 with a valid entry of L1's list switches, all else is L1's exit.
#[test]
fn vmfunc_switches_to_what_the_list_of_l1_has() {
    const VM_FUNCTIONS: u64 = 1 << 13;
    const LIST: u64 = 0x5_0000;
    const OTHER: u64 = 0x3_001e;
    // Function, index, whether it switches. Upper halves do not count.
    for (function, index, switches) in [
        (0, 1, true),
        (1 << 32, 1 << 32 | 1, true),
        (0, 2, false),
        (0, 511, false),
        (0, 512, false),
        (0, u64::from(u32::MAX), false),
        (1, 1, false),
        (64, 1, false),
    ] {
        let (mut hw, mut nested) = launched(&[
            (field::PRIMARY_PROCESSOR_BASED_CONTROLS, PROC | SECONDARY),
            (
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                ENABLE_EPT | VM_FUNCTIONS,
            ),
            (field::EPT_POINTER, EPTP),
            (field::VM_FUNCTION_CONTROLS, 1),
            (field::EPTP_LIST_ADDRESS, LIST),
        ]);
        assert_eq!(hw.read(field::VM_FUNCTION_CONTROLS), 0);
        hw.poke(LIST + 8, &OTHER.to_le_bytes());
        // Walk length 1, and 0 in the last entry.
        hw.poke(LIST + 16, &0x3_0006_u64.to_le_bytes());
        let before = hw.read(field::EPT_POINTER);
        hw.gprs[0] = function;
        hw.gprs[1] = index;
        let length = [(field::VM_EXIT_INSTRUCTION_LENGTH, 3)];
        exit_from_l2(&mut hw, Reason::Vmfunc as u32, &length);
        let done = l2_exit(&mut hw, &mut nested);
        if switches {
            assert_eq!(done, L2Done::Resume, "{function:#x} {index:#x}");
            assert_eq!(hw.read(field::GUEST_RIP), 0x60_0003);
            assert_ne!(hw.read(field::EPT_POINTER), before);
            exit_from_l2(&mut hw, Reason::Cpuid as u32, &[]);
            l2_exit(&mut hw, &mut nested);
        } else {
            assert_eq!(done, L2Done::Reflected, "{function:#x} {index:#x}");
            let reason = vmread(&mut hw, &mut nested, enc(field::EXIT_REASON));
            assert_eq!(reason, Reason::Vmfunc as u64);
        }
        let pointer = vmread(&mut hw, &mut nested, enc(field::EPT_POINTER));
        assert_eq!(pointer, if switches { OTHER } else { EPTP });
    }
}
