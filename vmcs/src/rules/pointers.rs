//! Control fields that point at pages: bitmaps, and the page for #VE.

use super::{CONTROLS_ANSWER, rules};
use crate::controls::{Proc, Proc2};
use crate::field;

const SECTION: &str = "VM-Execution Control Fields";

rules! {
    /// The I/O and MSR bitmaps.
    bitmaps: "I/O and MSR bitmaps";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [PRIMARY_PROCESSOR_BASED_CONTROLS, IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAP];
    io_a = "ctl.io-bitmap.a",
        "where \"use I/O bitmaps\" is 1, bitmap A is page-aligned and within the physical-address width",
        |c| !c.proc(Proc::USE_IO_BITMAPS) || c.page_at(c.get(field::IO_BITMAP_A));
    io_b = "ctl.io-bitmap.b",
        "where \"use I/O bitmaps\" is 1, bitmap B is page-aligned and within the physical-address width",
        |c| !c.proc(Proc::USE_IO_BITMAPS) || c.page_at(c.get(field::IO_BITMAP_B));
    msr = "ctl.msr-bitmap",
        "where \"use MSR bitmaps\" is 1, the bitmap is page-aligned and within the physical-address width",
        |c| !c.proc(Proc::USE_MSR_BITMAPS) || c.page_at(c.get(field::MSR_BITMAP));
}

rules! {
    /// VMCS shadowing's bitmaps.
    shadowing: "VMREAD and VMWRITE bitmaps";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VMREAD_BITMAP_ADDRESS, VMWRITE_BITMAP_ADDRESS,
    ];
    vmread = "ctl.vmread-bitmap",
        "where \"VMCS shadowing\" is 1, the VMREAD bitmap is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::VMCS_SHADOWING) || c.page_at(c.get(field::VMREAD_BITMAP_ADDRESS));
    vmwrite = "ctl.vmwrite-bitmap",
        "where \"VMCS shadowing\" is 1, the VMWRITE bitmap is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::VMCS_SHADOWING) || c.page_at(c.get(field::VMWRITE_BITMAP_ADDRESS));
}

rules! {
    /// The page that a #VE writes to.
    ve: "virtualization-exception information";
    section: SECTION;
    answer: CONTROLS_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
    ];
    ve_page = "ctl.ve-information",
        "where \"EPT-violation #VE\" is 1, the information address is page-aligned and within the physical-address width",
        |c| !c.proc2(Proc2::EPT_VIOLATION_VE)
            || c.page_at(c.get(field::VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS));
}
