//! L2's segment registers.
//!
//! SDM "Checks on Guest Segment Registers".

use rt::vmx::vm::{Mode, SEGMENTS, Segment};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field;

use crate::host::EDGES;
use crate::lab::Lab;

const BASES: [(Mode, bool); 6] = [
    (Mode::Long, true),
    (Mode::Compat, true),
    (Mode::Prot32, true),
    (Mode::Prot32, false),
    (Mode::Real, true),
    (Mode::V86, false),
];

/// Runs the group.
pub fn run(lab: &mut Lab) {
    for (mode, with_ept) in BASES {
        if lab.begin("segment rights", mode, with_ept) {
            for segment in &SEGMENTS {
                rights(lab, segment);
            }
            lab.end();
        }
        if lab.begin("segment bases", mode, with_ept) {
            for segment in &SEGMENTS {
                bases(lab, segment);
            }
            lab.end();
        }
    }
    for (mode, with_ept) in [
        (Mode::Long, true),
        (Mode::Prot32, true),
        (Mode::Prot32, false),
    ] {
        if lab.begin("privilege", mode, with_ept) {
            privilege(lab);
            lab.end();
        }
    }
}

fn rights(lab: &mut Lab, segment: &Segment) {
    let name = segment.name;
    for bit in 0..32 {
        lab.flip(segment.rights, bit);
        lab.run(format_args!("{name} ar^{bit}"));
    }
    let good = lab.get(segment.rights) & !0x1_001f;
    for kind in 0..32 {
        lab.set(segment.rights, good | kind);
        lab.run(format_args!("{name} type {kind:02x}"));
    }
    lab.set(segment.rights, 0x1_0000);
    lab.run(format_args!("{name} unusable"));
    lab.set(segment.rights, 0xffff_ffff);
    lab.run(format_args!("{name} unusable, all 1"));
    // The limit holds L2's first instruction, VMCALL: beyond it Bochs raises #GP only
    // where it does not remember the instruction.
    let smallest = if name == "cs" { 2 } else { 0 };
    for granular in [0, 1 << 15] {
        for limit in [
            smallest,
            0xfff,
            0xffff,
            0xf_ffff,
            0x10_0000,
            0xfff0_0fff,
            0xffff_f000,
            0xffff_ffff,
        ] {
            let value = lab.get(segment.rights) & !(1 << 15);
            lab.set(segment.rights, value | granular);
            lab.set(segment.limit, limit);
            lab.run(format_args!("{name} g{} {limit:x}", granular >> 15));
        }
    }
}

fn bases(lab: &mut Lab, segment: &Segment) {
    let name = segment.name;
    for address in EDGES
        .into_iter()
        .chain([1, 0x8010, 0xffff_ffff, 0x1_0000_0000])
    {
        lab.set(segment.base, address);
        lab.run(format_args!("{name} base {address:x}"));
    }
    for bit in 0..16 {
        lab.flip(segment.selector, bit);
        lab.run(format_args!("{name} selector^{bit}"));
    }
    // Not usable: most rules do not apply.
    for address in EDGES {
        lab.add(segment.rights, 1 << 16);
        lab.set(segment.base, address);
        lab.run(format_args!("{name} unusable, base {address:x}"));
    }
    for selector in [4, 7, 0xffff] {
        lab.add(segment.rights, 1 << 16);
        lab.set(segment.selector, selector);
        lab.run(format_args!("{name} unusable, selector {selector:x}"));
    }
}

/// CS's type and DPL, SS's DPL and both RPLs; data segments' DPL against their RPL.
fn privilege(lab: &mut Lab) {
    let [cs, ss, ds, ..] = &SEGMENTS;
    for kind in [3u64, 9, 11, 13, 15] {
        for cs_dpl in 0..4u64 {
            for ss_dpl in 0..4u64 {
                let value = lab.get(cs.rights) & !0x6f;
                lab.set(cs.rights, value | kind | cs_dpl << 5);
                let value = lab.get(ss.rights) & !0x60;
                lab.set(ss.rights, value | ss_dpl << 5);
                lab.set(ss.selector, 0x10 | ss_dpl);
                lab.set(cs.selector, 8 | ss_dpl);
                lab.run(format_args!("cs {kind:x} dpl {cs_dpl} ss dpl {ss_dpl}"));
            }
        }
    }
    for unrestricted in [0, u64::from(Proc2::UNRESTRICTED_GUEST.bits())] {
        for cs_rpl in 0..4 {
            for ss_rpl in 0..4 {
                for ss_dpl in 0..4 {
                    lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, unrestricted);
                    lab.set(cs.selector, 8 | cs_rpl);
                    lab.set(ss.selector, 0x10 | ss_rpl);
                    let value = lab.get(ss.rights) & !0x60;
                    lab.set(ss.rights, value | ss_dpl << 5);
                    lab.run(format_args!(
                        "{unrestricted:x} rpl {cs_rpl} {ss_rpl} dpl {ss_dpl}"
                    ));
                }
            }
        }
        for kind in [1u64, 3, 5, 7, 9, 11, 13, 15] {
            for dpl in 0..4u64 {
                for rpl in 0..4 {
                    lab.add(field::SECONDARY_PROCESSOR_BASED_CONTROLS, unrestricted);
                    let value = lab.get(ds.rights) & !0x6f;
                    lab.set(ds.rights, value | kind | dpl << 5);
                    lab.set(ds.selector, 0x10 | rpl);
                    lab.run(format_args!(
                        "{unrestricted:x} ds {kind:x} dpl {dpl} rpl {rpl}"
                    ));
                }
            }
        }
    }
}
