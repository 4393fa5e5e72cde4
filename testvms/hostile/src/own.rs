//! L1 writes where the SDM says that it must not: into its own VMCSs and lists while they are in use.
//!
//! What comes of that the SDM leaves open. On the bare machine, whose VMCSs are in that memory, L1 would
//! lose the ground under its feet; so these cases are for a run under a hypervisor.

use rt::page::Page;
use rt::random::Random;
use rt::report;
use rt::vmx::insn::{self, vmread_raw, write};
use rt::vmx::vm::{Outcome, layout};
use umbra_vmcs::controls::Proc;
use umbra_vmcs::field::{self, ALL};

use crate::lab::{Lab, is_known, reason};

code64! {
    fn own_code = "mov ecx, 0x174", "rdmsr", "in al, 0x80", "vmcall";
}

/// Runs the group.
pub fn run(lab: &mut Lab) {
    bitmaps_in_use(lab);
    if lab.hidden.is_none() {
        return;
    }
    active_vmcs(lab);
    vmxon_region(lab);
    controls_point_at_vmx(lab);
    loaded_garbage(lab);
}

/// The bitmaps and lists are rewritten between entries; each entry goes by what is there.
fn bitmaps_in_use(lab: &mut Lab) {
    lab.prepare(&own_code());
    for round in 0..64u64 {
        let (msr, io) = (round & 1, round >> 1 & 1);
        lab.vm.msr_bitmap.write(0x2e, (msr << 4) as u8);
        lab.vm.io_bitmaps.write(0x10, io as u8);
        write(field::GUEST_RIP, layout::CODE);
        let wanted = match (msr, io) {
            (1, _) => reason::RDMSR,
            (_, 1) => reason::IO,
            _ => reason::VMCALL,
        };
        lab.expect(format_args!("round {round}"), &[wanted]);
    }
}

/// Every word of the current VMCS's region is overwritten while L2 goes in and out.
fn active_vmcs(lab: &mut Lab) {
    lab.prepare(&own_code());
    let region = lab.vm.vmcs;
    let mut random = Random::new(0xac71);
    for round in 0..32 {
        for at in (0..4096).step_by(8) {
            region.write(at, random.bits());
        }
        write(field::GUEST_RIP, layout::CODE);
        lab.run(format_args!("active VMCS overwritten {round}"));
    }
    // VMCLEAR and VMPTRLD need the revision alone.
    region.write(0, lab.vmx.caps.revision());
}

fn vmxon_region(lab: &mut Lab) {
    let region = lab.vmx.region;
    for byte in [0, 0x55, 0xff] {
        region.fill(byte);
        lab.sane(format_args!("VMXON region {byte:#x}"));
    }
    region.fill(0);
    region.write(0, lab.vmx.caps.revision());
}

/// The bitmaps, the virtual-APIC page and the lists are the VMCS itself and the VMXON region.
fn controls_point_at_vmx(lab: &mut Lab) {
    let regions = [lab.vm.vmcs, lab.vmx.region];
    for region in regions {
        for offset in [0, 0x800, 0xff0] {
            lab.prepare(&own_code());
            lab.vm.proc(Proc::USE_TPR_SHADOW, Proc::empty());
            for field in [
                field::IO_BITMAP_A,
                field::IO_BITMAP_B,
                field::MSR_BITMAP,
                field::VIRTUAL_APIC_ADDRESS,
            ] {
                write(field, region.address());
            }
            region.write(offset, 0x174u64);
            write(field::VM_EXIT_MSR_STORE_ADDRESS, region.address() + offset);
            write(field::VM_EXIT_MSR_STORE_COUNT, 1);
            write(field::TPR_THRESHOLD, 0);
            lab.run(format_args!("controls point at VMX, {offset:#x}"));
        }
        region.write(0, lab.vmx.caps.revision());
    }
}

/// A VMCS whose region was filled by hand, over and over: VMPTRLD takes it, every field can be read,
/// and an entry fails at the latest for its host state.
fn loaded_garbage(lab: &mut Lab) {
    let page = Page::alloc(1);
    let pointer = page.address();
    let mut random = Random::new(0x6a4b);
    for round in 0..100 {
        for at in (0..4096).step_by(8) {
            page.write(at, random.bits());
        }
        // The launch state may be any word; "launched" is tried too.
        page.write(0, lab.vmx.caps.revision());
        let is_loaded = insn::vmptrld(&pointer).is_ok();
        report::check(format_args!("garbage {round} loads"), is_loaded);
        let mut sum = 0u64;
        for field in ALL {
            let value = vmread_raw(u64::from(field.encoding())).unwrap_or(0);
            sum = sum.wrapping_add(value & !field.value_mask());
        }
        report::check(format_args!("no field is wider than it is"), sum == 0);
        write(field::HOST_TR_SELECTOR, 0);
        for result in [
            insn::vmlaunch_expecting_failure(),
            insn::vmresume_expecting_failure(),
        ] {
            let is_right = match result {
                Ok(()) => false,
                Err(error) => is_known(&Outcome::Failed(error)),
            };
            report::check(format_args!("garbage {round} enters: {result:?}"), is_right);
        }
        let is_cleared = insn::vmclear(&pointer).is_ok();
        report::check(format_args!("garbage {round} is cleared"), is_cleared);
    }
    let own = lab.vm.vmcs.address();
    let _ = insn::vmptrld(&own);
}
