//! Cases of the checks on VMX controls.

use super::cases;
use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use crate::field;
use umbra_arch::vmx_cap::VmxBasic;

cases! {
    /// Words and the controls that need one another.
    CASES:
    "ctl.pin.reserved" => {
        keeps "nothing changed", |b| b.set(field::PIN_BASED_CONTROLS, 0x16);
        keeps "every control that a CPU may have", |b| {
            b.posted_interrupts();
            b.pin(Pin::NMI_EXITING | Pin::VIRTUAL_NMIS | Pin::ACTIVATE_PREEMPTION_TIMER)
        };
        breaks "bit 1 clear", |b| b.clear(field::PIN_BASED_CONTROLS, 1 << 1);
        breaks "bit 2 clear", |b| b.clear(field::PIN_BASED_CONTROLS, 1 << 2);
        breaks "bit 4 clear", |b| b.clear(field::PIN_BASED_CONTROLS, 1 << 4);
        breaks "bit 8 set", |b| b.or(field::PIN_BASED_CONTROLS, 1 << 8);
        breaks "bit 31 set", |b| b.or(field::PIN_BASED_CONTROLS, 1 << 31);
        breaks "all zero", |b| b.set(field::PIN_BASED_CONTROLS, 0);
        breaks "without TRUE MSRs, the plain one counts", |b| {
            b.caps.basic &= !VmxBasic::TRUE_CONTROLS.bits();
            b.caps.pin_plain.0 |= 1;
            b.proc(Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING)
        };
    }
    "ctl.proc.reserved" => {
        keeps "the default1 controls that the TRUE MSR frees are 0", |b| {
            b.clear(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 0x1_8000)
        };
        keeps "the default1 controls are 1", |b| {
            b.proc(Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING)
        };
        breaks "bit 0 set", |b| b.or(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 1);
        breaks "bit 1 clear", |b| b.clear(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 1 << 1);
        breaks "bit 18 set", |b| b.or(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 1 << 18);
        breaks "bit 26 clear", |b| b.clear(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 1 << 26);
        breaks "all zero", |b| b.set(field::PRIMARY_PROCESSOR_BASED_CONTROLS, 0);
        breaks "without TRUE MSRs, CR3 exiting must be 1", |b| b.caps.basic &= !VmxBasic::TRUE_CONTROLS.bits();
    }
    "ctl.proc2.reserved" => {
        keeps "activated, all zero", |b| b.proc2(Proc2::empty());
        keeps "not activated, all ones", |b| {
            b.set(field::SECONDARY_PROCESSOR_BASED_CONTROLS, u64::MAX)
        };
        breaks "bit 29 set", |b| b.proc2(Proc2::from_bits_retain(1 << 29));
        breaks "a control that the CPU does not offer", |b| {
            b.caps.proc2 = b.caps.proc2.without(Proc2::WBINVD_EXITING.bits());
            b.proc2(Proc2::WBINVD_EXITING)
        };
    }
    "ctl.proc3.reserved" => {
        keeps "activated, all zero", |b| b.proc3(Proc3::empty());
        keeps "not activated, all ones", |b| {
            b.set(field::TERTIARY_PROCESSOR_BASED_CONTROLS, u64::MAX)
        };
        breaks "bit 5 set", |b| b.proc3(Proc3::from_bits_retain(1 << 5));
        breaks "bit 63 set", |b| b.proc3(Proc3::from_bits_retain(1 << 63));
    }
    "ctl.cr3-target-count" => {
        keeps "4", |b| b.set(field::CR3_TARGET_COUNT, 4);
        keeps "0, with values that are no CR3", |b| {
            b.set(field::CR3_TARGET_VALUE_0, u64::MAX)
        };
        breaks "5", |b| b.set(field::CR3_TARGET_COUNT, 5);
        breaks "bit 31", |b| b.set(field::CR3_TARGET_COUNT, 1 << 31);
        breaks "a CPU without any, 1", |b| {
            b.caps.misc &= !(0x1ff << 16);
            b.set(field::CR3_TARGET_COUNT, 1)
        };
    }
    "ctl.nmi.virtual-needs-exiting" => {
        keeps "both", |b| b.pin(Pin::VIRTUAL_NMIS | Pin::NMI_EXITING);
        keeps "NMI exiting alone", |b| b.pin(Pin::NMI_EXITING);
        breaks "virtual NMIs alone", |b| b.pin(Pin::VIRTUAL_NMIS);
    }
    "ctl.nmi.window-needs-virtual" => {
        keeps "all three", |b| {
            b.pin(Pin::VIRTUAL_NMIS | Pin::NMI_EXITING);
            b.proc(Proc::NMI_WINDOW_EXITING)
        };
        breaks "the window with NMI exiting", |b| {
            b.pin(Pin::NMI_EXITING);
            b.proc(Proc::NMI_WINDOW_EXITING)
        };
        breaks "the window alone", |b| b.proc(Proc::NMI_WINDOW_EXITING);
    }
    "ctl.vpid.zero" => {
        keeps "1", |b| {
            b.proc2(Proc2::ENABLE_VPID);
            b.set(field::VIRTUAL_PROCESSOR_ID, 1)
        };
        keeps "FFFFH", |b| {
            b.proc2(Proc2::ENABLE_VPID);
            b.set(field::VIRTUAL_PROCESSOR_ID, 0xffff)
        };
        keeps "0, VPID set but not activated", |b| {
            b.set(field::SECONDARY_PROCESSOR_BASED_CONTROLS, Proc2::ENABLE_VPID.bits().into())
        };
        breaks "0", |b| b.proc2(Proc2::ENABLE_VPID);
    }
    "ctl.tsc-multiplier.zero" => {
        keeps "1", |b| {
            b.proc2(Proc2::USE_TSC_SCALING);
            b.set(field::TSC_MULTIPLIER, 1)
        };
        breaks "0", |b| b.proc2(Proc2::USE_TSC_SCALING);
    }
    "ctl.hlat.pointer" => {
        keeps "PWT and PCD", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT);
            b.set(field::HLAT_POINTER, b.top_page() | 0x18)
        };
        keeps "all ones, HLAT off", |b| b.set(field::HLAT_POINTER, u64::MAX);
        breaks "bit 0", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT);
            b.set(field::HLAT_POINTER, b.pages.any | 1)
        };
        breaks "bit 5", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT);
            b.set(field::HLAT_POINTER, b.pages.any | 1 << 5)
        };
        breaks "bit 11", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT);
            b.set(field::HLAT_POINTER, b.pages.any | 1 << 11)
        };
        breaks "beyond the width", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT);
            b.set(field::HLAT_POINTER, b.beyond())
        };
    }
    "ctl.ipi.table" => {
        keeps "8-byte aligned", |b| {
            b.ipi_virtualization();
            b.set(field::PID_POINTER_TABLE_ADDRESS, b.pages.any | 8)
        };
        breaks "4-byte aligned", |b| {
            b.ipi_virtualization();
            b.set(field::PID_POINTER_TABLE_ADDRESS, b.pages.any | 4)
        };
        breaks "beyond the width", |b| {
            b.ipi_virtualization();
            b.set(field::PID_POINTER_TABLE_ADDRESS, b.beyond())
        };
    }
    "ctl.ipi.table-end" => {
        keeps "ends with the last page", |b| {
            b.ipi_virtualization();
            b.set(field::PID_POINTER_TABLE_ADDRESS, b.top_page())
        };
        breaks "one entry more", |b| {
            b.ipi_virtualization();
            b.set(field::PID_POINTER_TABLE_ADDRESS, b.top_page());
            b.set(field::LAST_PID_POINTER_INDEX, 512)
        };
    }
    "ctl.tpr-threshold.reserved" => {
        keeps "15, VTPR F0H", |b| {
            b.tpr_shadow();
            b.poke32(b.pages.virtual_apic + 0x80, 0xf0);
            b.set(field::TPR_THRESHOLD, 15)
        };
        keeps "all ones, interrupt delivery", |b| {
            b.interrupt_delivery();
            b.set(field::TPR_THRESHOLD, u64::MAX)
        };
        keeps "all ones, no shadow", |b| b.set(field::TPR_THRESHOLD, u64::MAX);
        breaks "16", |b| {
            b.tpr_shadow();
            b.set(field::TPR_THRESHOLD, 16)
        };
        breaks "bit 31", |b| {
            b.tpr_shadow();
            b.set(field::TPR_THRESHOLD, 1 << 31)
        };
        breaks "16, APIC accesses virtualised", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
            b.set(field::APIC_ACCESS_ADDRESS, b.pages.any);
            b.set(field::TPR_THRESHOLD, 16)
        };
    }
    "ctl.tpr-threshold.above-vtpr" => {
        keeps "equal", |b| {
            b.tpr_shadow();
            b.poke32(b.pages.virtual_apic + 0x80, 0x5f);
            b.set(field::TPR_THRESHOLD, 5)
        };
        keeps "above, APIC accesses virtualised", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
            b.set(field::APIC_ACCESS_ADDRESS, b.pages.any);
            b.poke32(b.pages.virtual_apic + 0x80, 0x50);
            b.set(field::TPR_THRESHOLD, 6)
        };
        keeps "above, interrupt delivery", |b| {
            b.interrupt_delivery();
            b.poke32(b.pages.virtual_apic + 0x80, 0x50);
            b.set(field::TPR_THRESHOLD, 6)
        };
        breaks "above", |b| {
            b.tpr_shadow();
            b.poke32(b.pages.virtual_apic + 0x80, 0x5f);
            b.set(field::TPR_THRESHOLD, 6)
        };
        breaks "1, VTPR 0FH", |b| {
            b.tpr_shadow();
            b.poke32(b.pages.virtual_apic + 0x80, 0x0f);
            b.set(field::TPR_THRESHOLD, 1)
        };
        breaks "above, x2APIC mode virtualised", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_X2APIC_MODE);
            b.poke32(b.pages.virtual_apic + 0x80, 0x50);
            b.set(field::TPR_THRESHOLD, 6)
        };
    }
    "ctl.apic.x2apic-needs-tpr-shadow" => {
        keeps "with the shadow", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_X2APIC_MODE)
        };
        breaks "without", |b| b.proc2(Proc2::VIRTUALIZE_X2APIC_MODE);
    }
    "ctl.apic.registers-need-tpr-shadow" => {
        keeps "with the shadow", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::APIC_REGISTER_VIRTUALIZATION)
        };
        breaks "without", |b| b.proc2(Proc2::APIC_REGISTER_VIRTUALIZATION);
    }
    "ctl.apic.delivery-needs-tpr-shadow" => {
        keeps "with the shadow", |b| b.interrupt_delivery();
        breaks "without", |b| {
            b.pin(Pin::EXTERNAL_INTERRUPT_EXITING);
            b.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
        };
    }
    "ctl.apic.ipi-needs-tpr-shadow" => {
        keeps "with the shadow", |b| b.ipi_virtualization();
        breaks "without", |b| b.proc3(Proc3::IPI_VIRTUALIZATION);
    }
    "ctl.apic.x2apic-excludes-accesses" => {
        keeps "accesses alone", |b| {
            b.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
            b.set(field::APIC_ACCESS_ADDRESS, b.pages.any)
        };
        breaks "both", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUALIZE_X2APIC_MODE | Proc2::VIRTUALIZE_APIC_ACCESSES);
            b.set(field::APIC_ACCESS_ADDRESS, b.pages.any)
        };
    }
    "ctl.apic.delivery-needs-exiting" => {
        keeps "with exiting", |b| b.interrupt_delivery();
        breaks "without", |b| {
            b.tpr_shadow();
            b.proc2(Proc2::VIRTUAL_INTERRUPT_DELIVERY)
        };
    }
    "ctl.posted.needs-delivery" => {
        keeps "with delivery", |b| b.posted_interrupts();
        breaks "without", |b| {
            b.pin(Pin::PROCESS_POSTED_INTERRUPTS | Pin::EXTERNAL_INTERRUPT_EXITING);
            b.exit(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT)
        };
    }
    "ctl.posted.needs-acknowledge" => {
        keeps "with acknowledging", |b| b.posted_interrupts();
        breaks "without", |b| {
            b.posted_interrupts();
            let bits = Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT.bits().into();
            b.clear(field::PRIMARY_VM_EXIT_CONTROLS, bits)
        };
    }
    "ctl.posted.vector" => {
        keeps "255", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 255)
        };
        keeps "0", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0)
        };
        keeps "256, not processed", |b| {
            b.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 256)
        };
        breaks "256", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 256)
        };
    }
    "ctl.posted.descriptor" => {
        keeps "64-byte aligned", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, b.pages.any | 0x40)
        };
        keeps "all ones, not processed", |b| {
            b.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, u64::MAX)
        };
        breaks "32-byte aligned", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, b.pages.any | 0x20)
        };
        breaks "beyond the width", |b| {
            b.posted_interrupts();
            b.set(field::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, b.beyond())
        };
    }
    "ctl.eptp.memory-type" => {
        keeps "write-back", |b| b.ept();
        keeps "uncacheable", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 7)
        };
        keeps "1, EPT off", |b| b.set(field::EPT_POINTER, 1);
        breaks "1", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 7);
            b.or(field::EPT_POINTER, 1)
        };
        breaks "5", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 7);
            b.or(field::EPT_POINTER, 5)
        };
        breaks "7", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 7)
        };
        breaks "uncacheable on a CPU without it", |b| {
            b.ept();
            b.caps.ept_vpid &= !(1 << 8);
            b.clear(field::EPT_POINTER, 7)
        };
        breaks "write-back on a CPU without it", |b| {
            b.ept();
            b.caps.ept_vpid &= !(1 << 14)
        };
    }
    "ctl.eptp.walk-length" => {
        keeps "5 on a CPU with it", |b| {
            b.ept();
            b.caps.ept_vpid |= 1 << 7;
            b.clear(field::EPT_POINTER, 7 << 3);
            b.or(field::EPT_POINTER, 4 << 3)
        };
        breaks "5 on a CPU without it", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 7 << 3);
            b.or(field::EPT_POINTER, 4 << 3)
        };
        breaks "3", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 1 << 3)
        };
        breaks "1", |b| {
            b.ept();
            b.clear(field::EPT_POINTER, 7 << 3)
        };
        breaks "8", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 7 << 3)
        };
        breaks "4 on a CPU without it", |b| {
            b.ept();
            b.caps.ept_vpid &= !(1 << 6)
        };
    }
    "ctl.eptp.accessed-dirty" => {
        keeps "on", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 1 << 6)
        };
        breaks "on a CPU without them", |b| {
            b.ept();
            b.caps.ept_vpid &= !(1 << 21);
            b.or(field::EPT_POINTER, 1 << 6)
        };
    }
    "ctl.eptp.shadow-stack" => {
        keeps "on a CPU with it", |b| {
            b.ept();
            b.caps.ept_vpid |= 1 << 23;
            b.or(field::EPT_POINTER, 1 << 7)
        };
        breaks "on a CPU without it", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 1 << 7)
        };
    }
    "ctl.eptp.reserved" => {
        keeps "the last page", |b| {
            b.ept();
            b.or(field::EPT_POINTER, b.top_page())
        };
        breaks "bit 8", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 1 << 8)
        };
        breaks "bit 11", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 1 << 11)
        };
        breaks "beyond the width", |b| {
            b.ept();
            b.or(field::EPT_POINTER, b.beyond())
        };
        breaks "bit 63", |b| {
            b.ept();
            b.or(field::EPT_POINTER, 1 << 63)
        };
    }
    "ctl.pml.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc2(Proc2::ENABLE_PML);
            b.set(field::PML_ADDRESS, b.pages.any)
        };
        breaks "without", |b| {
            b.proc2(Proc2::ENABLE_PML);
            b.set(field::PML_ADDRESS, b.pages.any)
        };
    }
    "ctl.unrestricted-guest.needs-ept" => {
        keeps "with EPT", |b| b.unrestricted();
        breaks "without", |b| b.proc2(Proc2::UNRESTRICTED_GUEST);
    }
    "ctl.mode-based-execute.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL)
        };
        breaks "without", |b| b.proc2(Proc2::MODE_BASED_EXECUTE_CONTROL);
    }
    "ctl.sub-page.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS);
            b.set(field::SUB_PAGE_PERMISSION_TABLE_POINTER, b.pages.any)
        };
        breaks "without", |b| {
            b.proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS);
            b.set(field::SUB_PAGE_PERMISSION_TABLE_POINTER, b.pages.any)
        };
    }
    "ctl.hlat.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc3(Proc3::ENABLE_HLAT)
        };
        breaks "without", |b| b.proc3(Proc3::ENABLE_HLAT);
    }
    "ctl.paging-write.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc3(Proc3::EPT_PAGING_WRITE)
        };
        breaks "without", |b| b.proc3(Proc3::EPT_PAGING_WRITE);
    }
    "ctl.paging-verification.needs-ept" => {
        keeps "with EPT", |b| {
            b.ept();
            b.proc3(Proc3::GUEST_PAGING_VERIFICATION)
        };
        breaks "without", |b| b.proc3(Proc3::GUEST_PAGING_VERIFICATION);
    }
    "ctl.pt-guest-physical.needs-ept" => {
        keeps "with all three", |b| b.pt_guest_physical();
        breaks "without EPT", |b| {
            b.pt_guest_physical();
            let bits = Proc2::ENABLE_EPT.bits().into();
            b.clear(field::SECONDARY_PROCESSOR_BASED_CONTROLS, bits)
        };
    }
    "ctl.pt-guest-physical.needs-load" => {
        keeps "load without guest-physical", |b| b.entry(Entry::LOAD_RTIT_CTL);
        breaks "without loading IA32_RTIT_CTL", |b| {
            b.pt_guest_physical();
            b.clear(field::VM_ENTRY_CONTROLS, Entry::LOAD_RTIT_CTL.bits().into())
        };
    }
    "ctl.pt-guest-physical.needs-clear" => {
        keeps "clear without guest-physical", |b| b.exit(Exit::CLEAR_RTIT_CTL);
        breaks "without clearing IA32_RTIT_CTL", |b| {
            b.pt_guest_physical();
            b.clear(field::PRIMARY_VM_EXIT_CONTROLS, Exit::CLEAR_RTIT_CTL.bits().into())
        };
    }
    "ctl.vmfunc.reserved" => {
        keeps "none", |b| b.proc2(Proc2::ENABLE_VM_FUNCTIONS);
        keeps "EPTP switching", |b| b.eptp_switching();
        keeps "all ones, VM functions off", |b| {
            b.set(field::VM_FUNCTION_CONTROLS, u64::MAX)
        };
        breaks "bit 1", |b| {
            b.proc2(Proc2::ENABLE_VM_FUNCTIONS);
            b.set(field::VM_FUNCTION_CONTROLS, 2)
        };
        breaks "bit 63", |b| {
            b.eptp_switching();
            b.or(field::VM_FUNCTION_CONTROLS, 1 << 63)
        };
    }
    "ctl.vmfunc.switching-needs-ept" => {
        keeps "with EPT", |b| b.eptp_switching();
        breaks "without", |b| {
            b.eptp_switching();
            let bits = Proc2::ENABLE_EPT.bits().into();
            b.clear(field::SECONDARY_PROCESSOR_BASED_CONTROLS, bits)
        };
    }
    "ctl.exit.reserved" => {
        keeps "the default1 control that the TRUE MSR frees is 1", |b| {
            b.exit(Exit::SAVE_DEBUG_CONTROLS)
        };
        breaks "bit 0 clear", |b| b.clear(field::PRIMARY_VM_EXIT_CONTROLS, 1);
        breaks "bit 17 clear", |b| b.clear(field::PRIMARY_VM_EXIT_CONTROLS, 1 << 17);
        breaks "a control that the CPU does not offer", |b| {
            b.caps.exit_true = b.caps.exit_true.without(Exit::LOAD_PKRS.bits());
            b.exit(Exit::LOAD_PKRS)
        };
        breaks "all zero", |b| b.set(field::PRIMARY_VM_EXIT_CONTROLS, 0);
        breaks "without TRUE MSRs, \"save debug controls\" must be 1", |b| {
            b.caps.basic &= !VmxBasic::TRUE_CONTROLS.bits();
            b.proc(Proc::CR3_LOAD_EXITING | Proc::CR3_STORE_EXITING)
        };
    }
    "ctl.exit2.reserved" => {
        keeps "activated, all zero", |b| b.exit2(0);
        keeps "not activated, all ones", |b| b.set(field::SECONDARY_VM_EXIT_CONTROLS, u64::MAX);
        breaks "bit 0", |b| b.exit2(1);
        breaks "bit 63", |b| b.exit2(1 << 63);
    }
    "ctl.exit.save-timer-needs-timer" => {
        keeps "both", |b| {
            b.pin(Pin::ACTIVATE_PREEMPTION_TIMER);
            b.exit(Exit::SAVE_PREEMPTION_TIMER)
        };
        breaks "save alone", |b| b.exit(Exit::SAVE_PREEMPTION_TIMER);
    }
    "ctl.entry.reserved" => {
        keeps "the default1 control that the TRUE MSR frees is 1", |b| {
            b.entry(Entry::LOAD_DEBUG_CONTROLS)
        };
        breaks "bit 0 clear", |b| b.clear(field::VM_ENTRY_CONTROLS, 1);
        breaks "bit 12 clear", |b| b.clear(field::VM_ENTRY_CONTROLS, 1 << 12);
        breaks "bit 31 set", |b| b.or(field::VM_ENTRY_CONTROLS, 1 << 31);
        breaks "bit 23 set", |b| b.or(field::VM_ENTRY_CONTROLS, 1 << 23);
        breaks "all zero", |b| b.set(field::VM_ENTRY_CONTROLS, 0);
    }
    "ctl.entry.smm" => {
        keeps "off", |b| b.entry(Entry::empty());
        breaks "on", |b| b.entry(Entry::ENTRY_TO_SMM);
        breaks "on, with the other", |b| {
            b.entry(Entry::ENTRY_TO_SMM | Entry::DEACTIVATE_DUAL_MONITOR_TREATMENT)
        };
    }
    "ctl.entry.dual-monitor" => {
        keeps "off", |b| b.entry(Entry::empty());
        breaks "on", |b| b.entry(Entry::DEACTIVATE_DUAL_MONITOR_TREATMENT);
    }
    "ctl.entry.rtit-while-tracing" => {
        keeps "no tracing", |b| b.entry(Entry::LOAD_RTIT_CTL);
        keeps "tracing, not loaded", |b| b.l1.pt_enabled = true;
        breaks "tracing", |b| {
            b.l1.pt_enabled = true;
            b.entry(Entry::LOAD_RTIT_CTL)
        };
    }
}

/// The cases of a rule about a page that a control points at.
macro_rules! pages {
    ($($rule:literal: $field:ident, |$b:ident| $enable:expr;)+) => {
        cases! {
            /// Pages that controls point at.
            POINTERS:
            $($rule => {
                keeps "a page", |$b| { $enable; $b.set(field::$field, $b.pages.any) };
                keeps "the last page", |$b| { $enable; $b.set(field::$field, $b.top_page()) };
                keeps "all ones, not in use", |$b| $b.set(field::$field, u64::MAX);
                breaks "bit 0", |$b| { $enable; $b.set(field::$field, $b.pages.any | 1) };
                breaks "bit 11", |$b| { $enable; $b.set(field::$field, $b.pages.any | 1 << 11) };
                breaks "beyond the width", |$b| { $enable; $b.set(field::$field, $b.beyond()) };
                breaks "bit 63", |$b| { $enable; $b.set(field::$field, $b.pages.any | 1 << 63) };
                breaks "all ones", |$b| { $enable; $b.set(field::$field, u64::MAX) };
                breaks "above 4 GiB, on a CPU of 32-bit structures", |$b| {
                    $b.caps.basic |= VmxBasic::ADDRESSES_32_BIT.bits();
                    $enable;
                    $b.set(field::$field, 1 << 32)
                };
            })+
            "ctl.exit.msr-store.address" => {
                keeps "16-byte aligned", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.pages.any | 0x10)
                };
                keeps "all ones, no entry", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, u64::MAX)
                };
                breaks "8-byte aligned", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.pages.any | 8)
                };
                breaks "beyond the width", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.beyond())
                };
            }
            "ctl.exit.msr-store.end" => {
                keeps "the last entry there can be", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "one entry more", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 2);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "a count whose bytes take more than 32 bits", |b| {
                    b.set(field::VM_EXIT_MSR_STORE_COUNT, 0x1000_0000);
                    b.set(field::VM_EXIT_MSR_STORE_ADDRESS, b.top_page())
                };
            }
            "ctl.exit.msr-load.address" => {
                keeps "16-byte aligned", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.pages.any | 0x10)
                };
                keeps "all ones, no entry", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, u64::MAX)
                };
                breaks "8-byte aligned", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.pages.any | 8)
                };
                breaks "beyond the width", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.beyond())
                };
            }
            "ctl.exit.msr-load.end" => {
                keeps "the last entry there can be", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "one entry more", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 2);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "a count whose bytes take more than 32 bits", |b| {
                    b.set(field::VM_EXIT_MSR_LOAD_COUNT, 0x1000_0000);
                    b.set(field::VM_EXIT_MSR_LOAD_ADDRESS, b.top_page())
                };
            }
            "ctl.entry.msr-load.address" => {
                keeps "16-byte aligned", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.pages.any | 0x10)
                };
                keeps "all ones, no entry", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, u64::MAX)
                };
                breaks "8-byte aligned", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.pages.any | 8)
                };
                breaks "beyond the width", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.beyond())
                };
            }
            "ctl.entry.msr-load.end" => {
                keeps "the last entry there can be", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 1);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "one entry more", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 2);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.top_page() | 0xff0)
                };
                breaks "a count whose bytes take more than 32 bits", |b| {
                    b.set(field::VM_ENTRY_MSR_LOAD_COUNT, 0x1000_0000);
                    b.set(field::VM_ENTRY_MSR_LOAD_ADDRESS, b.top_page())
                };
            }
        }
    };
}

pages! {
    "ctl.io-bitmap.a": IO_BITMAP_A, |b| b.proc(Proc::USE_IO_BITMAPS);
    "ctl.io-bitmap.b": IO_BITMAP_B, |b| b.proc(Proc::USE_IO_BITMAPS);
    "ctl.msr-bitmap": MSR_BITMAP, |b| b.proc(Proc::USE_MSR_BITMAPS);
    "ctl.vmread-bitmap": VMREAD_BITMAP_ADDRESS, |b| b.proc2(Proc2::VMCS_SHADOWING);
    "ctl.vmwrite-bitmap": VMWRITE_BITMAP_ADDRESS, |b| b.proc2(Proc2::VMCS_SHADOWING);
    "ctl.ve-information": VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, |b| b.proc2(Proc2::EPT_VIOLATION_VE);
    "ctl.virtual-apic-page": VIRTUAL_APIC_ADDRESS, |b| b.tpr_shadow();
    "ctl.apic-access-page": APIC_ACCESS_ADDRESS, |b| b.proc2(Proc2::VIRTUALIZE_APIC_ACCESSES);
    "ctl.pasid.low": LOW_PASID_DIRECTORY_ADDRESS, |b| b.proc2(Proc2::PASID_TRANSLATION);
    "ctl.pasid.high": HIGH_PASID_DIRECTORY_ADDRESS, |b| b.proc2(Proc2::PASID_TRANSLATION);
    "ctl.pml.address": PML_ADDRESS, |b| { b.ept(); b.proc2(Proc2::ENABLE_PML) };
    "ctl.sub-page.table": SUB_PAGE_PERMISSION_TABLE_POINTER, |b| {
        b.ept();
        b.proc2(Proc2::SUB_PAGE_WRITE_PERMISSIONS)
    };
    "ctl.vmfunc.eptp-list": EPTP_LIST_ADDRESS, |b| b.eptp_switching();
}
