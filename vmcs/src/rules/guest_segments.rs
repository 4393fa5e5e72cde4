//! Guest segment registers and descriptor tables.

use umbra_arch::{AccessRights, Cr0};

use super::{Ctx, GUEST_ANSWER, rules};
use crate::field::{self, Field};

const SECTION: &str = "Checks on Guest Segment Registers";
const TABLES: &str = "Checks on Guest Descriptor-Table Registers";

/// The access rights in a field.
#[inline(always)]
pub(super) fn rights_in(c: &Ctx<'_>, field: Field) -> AccessRights {
    AccessRights::from_bits(c.get32(field))
}

/// G is 0 where a bit of limit[11:0] is 0.
#[inline(always)]
const fn low_limit_ok(rights: AccessRights, limit: u32) -> bool {
    !rights.granular() || limit & 0xfff == 0xfff
}

/// G is 1 where a bit of limit[31:20] is 1.
#[inline(always)]
const fn high_limit_ok(rights: AccessRights, limit: u32) -> bool {
    rights.granular() || limit >> 20 == 0
}

/// Data or non-conforming code, whose DPL is checked.
#[inline(always)]
const fn checks_dpl(rights: AccessRights) -> bool {
    rights.kind() <= 11
}

/// CS of type 3: a data segment, which only an unrestricted guest may have.
const DATA_CS: u8 = 3;

#[inline(always)]
fn v8086_base(c: &Ctx<'_>, selector: Field, base: Field) -> bool {
    !c.v8086() || c.get(base) == c.get(selector) << 4
}

#[inline(always)]
fn v8086_limit(c: &Ctx<'_>, limit: Field) -> bool {
    !c.v8086() || c.get32(limit) == 0xffff
}

#[inline(always)]
fn v8086_rights(c: &Ctx<'_>, rights: Field) -> bool {
    !c.v8086() || rights_in(c, rights) == AccessRights::V8086
}

/// Whether the ordinary rules skip the register: it is unusable, or virtual-8086
/// mode has rules of its own.
#[inline(always)]
fn unused(c: &Ctx<'_>, rights: Field) -> bool {
    c.v8086() || rights_in(c, rights).unusable()
}

/// FS and GS: canonical, whether usable or not.
#[inline(always)]
fn base_canonical(c: &Ctx<'_>, _rights: Field, base: Field) -> bool {
    c.canonical(c.get(base))
}

/// The others: 32 bits, where usable.
#[inline(always)]
fn base_32_bits(c: &Ctx<'_>, rights: Field, base: Field) -> bool {
    rights_in(c, rights).unusable() || c.get(base) >> 32 == 0
}

/// The rows of one of the data-segment registers.
macro_rules! data_segment {
    (
        $module:ident, $lower:literal, $upper:literal,
        $selector:ident, $base:ident, $limit:ident, $rights:ident,
        $base_what:literal, $base_ok:ident
    ) => {
        rules! {
            /// One of the data-segment registers.
            $module: concat!("guest ", $upper);
            section: SECTION;
            answer: GUEST_ANSWER;
            runs: OnChange;
            reads: [
                PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
                GUEST_RFLAGS, $selector, $base, $limit, $rights,
            ];
            base_v8086 = concat!("guest.seg.", $lower, ".v8086.base"),
                concat!("in virtual-8086 mode, the ", $upper, " base is the selector times 16"),
                |c| v8086_base(c, field::$selector, field::$base);
            limit_v8086 = concat!("guest.seg.", $lower, ".v8086.limit"),
                concat!("in virtual-8086 mode, the ", $upper, " limit is FFFFH"),
                |c| v8086_limit(c, field::$limit);
            rights_v8086 = concat!("guest.seg.", $lower, ".v8086.rights"),
                concat!("in virtual-8086 mode, the ", $upper, " access rights are F3H"),
                |c| v8086_rights(c, field::$rights);
            base = concat!("guest.seg.", $lower, ".base"),
                $base_what,
                |c| $base_ok(c, field::$rights, field::$base);
            accessed = concat!("guest.seg.", $lower, ".type.accessed"),
                concat!("outside virtual-8086 mode, the type of a usable ", $upper, " is an accessed one (bit 0)"),
                |c| unused(c, field::$rights) || rights_in(c, field::$rights).accessed();
            readable = concat!("guest.seg.", $lower, ".type.readable"),
                concat!("outside virtual-8086 mode, the type of a usable ", $upper, " that is code (bit 3) is readable (bit 1)"),
                |c| unused(c, field::$rights) || rights_in(c, field::$rights).readable();
            s = concat!("guest.seg.", $lower, ".s"),
                concat!("outside virtual-8086 mode, S of a usable ", $upper, " is 1"),
                |c| unused(c, field::$rights) || rights_in(c, field::$rights).is_code_or_data();
            dpl = concat!("guest.seg.", $lower, ".dpl"),
                concat!("outside virtual-8086 mode, where \"unrestricted guest\" is 0, DPL of a usable ", $upper, " that is data or non-conforming code is at least RPL of its selector"),
                |c| {
                    let rights = rights_in(c, field::$rights);
                    unused(c, field::$rights)
                        || c.unrestricted()
                        || !checks_dpl(rights)
                        || rights.dpl() >= c.get32(field::$selector) as u8 & 3
                };
            p = concat!("guest.seg.", $lower, ".present"),
                concat!("outside virtual-8086 mode, a usable ", $upper, " is present"),
                |c| unused(c, field::$rights) || rights_in(c, field::$rights).present();
            reserved = concat!("guest.seg.", $lower, ".reserved"),
                concat!("outside virtual-8086 mode, bits 31:17 and 11:8 of the access rights of a usable ", $upper, " are 0"),
                |c| unused(c, field::$rights) || rights_in(c, field::$rights).reserved_clear();
            low = concat!("guest.seg.", $lower, ".granularity.low"),
                concat!("outside virtual-8086 mode, G of a usable ", $upper, " is 0 where a bit of limit[11:0] is 0"),
                |c| unused(c, field::$rights)
                    || low_limit_ok(rights_in(c, field::$rights), c.get32(field::$limit));
            high = concat!("guest.seg.", $lower, ".granularity.high"),
                concat!("outside virtual-8086 mode, G of a usable ", $upper, " is 1 where a bit of limit[31:20] is 1"),
                |c| unused(c, field::$rights)
                    || high_limit_ok(rights_in(c, field::$rights), c.get32(field::$limit));
        }
    };
}

data_segment! {
    es, "es", "ES", GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS,
    "bits 63:32 of the base of a usable ES are 0", base_32_bits
}
data_segment! {
    ds, "ds", "DS", GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS,
    "bits 63:32 of the base of a usable DS are 0", base_32_bits
}
data_segment! {
    fs, "fs", "FS", GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS,
    "the FS base is canonical", base_canonical
}
data_segment! {
    gs, "gs", "GS", GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS,
    "the GS base is canonical", base_canonical
}

rules! {
    /// CS, whose rights count whether or not it is marked unusable.
    cs: "guest CS";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS,
        VM_ENTRY_CONTROLS, GUEST_RFLAGS, GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT,
        GUEST_CS_ACCESS_RIGHTS, GUEST_SS_ACCESS_RIGHTS,
    ];
    base_v8086 = "guest.seg.cs.v8086.base",
        "in virtual-8086 mode, the CS base is the selector times 16",
        |c| v8086_base(c, field::GUEST_CS_SELECTOR, field::GUEST_CS_BASE);
    limit_v8086 = "guest.seg.cs.v8086.limit",
        "in virtual-8086 mode, the CS limit is FFFFH",
        |c| v8086_limit(c, field::GUEST_CS_LIMIT);
    rights_v8086 = "guest.seg.cs.v8086.rights",
        "in virtual-8086 mode, the CS access rights are F3H",
        |c| v8086_rights(c, field::GUEST_CS_ACCESS_RIGHTS);
    base = "guest.seg.cs.base",
        "bits 63:32 of the CS base are 0",
        |c| c.get(field::GUEST_CS_BASE) >> 32 == 0;
    kind = "guest.seg.cs.type",
        "outside virtual-8086 mode, the type of CS is 9, 11, 13 or 15, or 3 where \"unrestricted guest\" is 1",
        |c| {
            let kind = rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).kind();
            c.v8086() || kind & 0b1001 == 0b1001 || kind == DATA_CS && c.unrestricted()
        };
    s = "guest.seg.cs.s",
        "outside virtual-8086 mode, S of CS is 1",
        |c| c.v8086() || rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).is_code_or_data();
    dpl_data = "guest.seg.cs.dpl.data",
        "outside virtual-8086 mode, DPL of a CS of type 3 is 0",
        |c| {
            let cs = rights_in(c, field::GUEST_CS_ACCESS_RIGHTS);
            c.v8086() || cs.kind() != DATA_CS || cs.dpl() == 0
        };
    dpl_same = "guest.seg.cs.dpl.non-conforming",
        "outside virtual-8086 mode, DPL of a CS of type 9 or 11 equals DPL of SS",
        |c| {
            let cs = rights_in(c, field::GUEST_CS_ACCESS_RIGHTS);
            c.v8086()
                || !matches!(cs.kind(), 9 | 11)
                || cs.dpl() == rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl()
        };
    dpl_below = "guest.seg.cs.dpl.conforming",
        "outside virtual-8086 mode, DPL of a CS of type 13 or 15 is at most DPL of SS",
        |c| {
            let cs = rights_in(c, field::GUEST_CS_ACCESS_RIGHTS);
            c.v8086()
                || !matches!(cs.kind(), 13 | 15)
                || cs.dpl() <= rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl()
        };
    p = "guest.seg.cs.present",
        "outside virtual-8086 mode, CS is present",
        |c| c.v8086() || rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).present();
    reserved = "guest.seg.cs.reserved",
        "outside virtual-8086 mode, bits 31:17 and 11:8 of the CS access rights are 0",
        |c| c.v8086() || rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).reserved_clear();
    size = "guest.seg.cs.default-size",
        "outside virtual-8086 mode, D/B of CS is 0 where \"IA-32e mode guest\" and L are 1",
        |c| c.v8086()
            || !c.code64()
            || !rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).big();
    low = "guest.seg.cs.granularity.low",
        "outside virtual-8086 mode, G of CS is 0 where a bit of limit[11:0] is 0",
        |c| c.v8086()
            || low_limit_ok(
                rights_in(c, field::GUEST_CS_ACCESS_RIGHTS),
                c.get32(field::GUEST_CS_LIMIT),
            );
    high = "guest.seg.cs.granularity.high",
        "outside virtual-8086 mode, G of CS is 1 where a bit of limit[31:20] is 1",
        |c| c.v8086()
            || high_limit_ok(
                rights_in(c, field::GUEST_CS_ACCESS_RIGHTS),
                c.get32(field::GUEST_CS_LIMIT),
            );
}

rules! {
    /// SS, whose DPL is the privilege level and counts always.
    ss: "guest SS";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        PRIMARY_PROCESSOR_BASED_CONTROLS, SECONDARY_PROCESSOR_BASED_CONTROLS, GUEST_CR0,
        GUEST_RFLAGS, GUEST_CS_SELECTOR, GUEST_CS_ACCESS_RIGHTS, GUEST_SS_SELECTOR,
        GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS,
    ];
    base_v8086 = "guest.seg.ss.v8086.base",
        "in virtual-8086 mode, the SS base is the selector times 16",
        |c| v8086_base(c, field::GUEST_SS_SELECTOR, field::GUEST_SS_BASE);
    limit_v8086 = "guest.seg.ss.v8086.limit",
        "in virtual-8086 mode, the SS limit is FFFFH",
        |c| v8086_limit(c, field::GUEST_SS_LIMIT);
    rights_v8086 = "guest.seg.ss.v8086.rights",
        "in virtual-8086 mode, the SS access rights are F3H",
        |c| v8086_rights(c, field::GUEST_SS_ACCESS_RIGHTS);
    rpl = "guest.seg.ss.rpl",
        "outside virtual-8086 mode, where \"unrestricted guest\" is 0, RPL of the SS selector equals RPL of the CS selector",
        |c| c.v8086()
            || c.unrestricted()
            || (c.get(field::GUEST_SS_SELECTOR) ^ c.get(field::GUEST_CS_SELECTOR)) & 3 == 0;
    base = "guest.seg.ss.base",
        "bits 63:32 of the base of a usable SS are 0",
        |c| base_32_bits(c, field::GUEST_SS_ACCESS_RIGHTS, field::GUEST_SS_BASE);
    kind = "guest.seg.ss.type",
        "outside virtual-8086 mode, the type of a usable SS is 3 or 7",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || matches!(rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).kind(), 3 | 7);
    s = "guest.seg.ss.s",
        "outside virtual-8086 mode, S of a usable SS is 1",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).is_code_or_data();
    dpl_rpl = "guest.seg.ss.dpl.rpl",
        "outside virtual-8086 mode, where \"unrestricted guest\" is 0, DPL of SS equals RPL of its selector",
        |c| c.v8086()
            || c.unrestricted()
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl()
                == c.get32(field::GUEST_SS_SELECTOR) as u8 & 3;
    dpl_data = "guest.seg.ss.dpl.data-cs",
        "outside virtual-8086 mode, DPL of SS is 0 where the type of CS is 3",
        |c| c.v8086()
            || rights_in(c, field::GUEST_CS_ACCESS_RIGHTS).kind() != DATA_CS
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl() == 0;
    dpl_real = "guest.seg.ss.dpl.real",
        "outside virtual-8086 mode, DPL of SS is 0 where CR0.PE is 0",
        |c| c.v8086()
            || Cr0::PE.is_in(c.get(field::GUEST_CR0))
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).dpl() == 0;
    p = "guest.seg.ss.present",
        "outside virtual-8086 mode, a usable SS is present",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).present();
    reserved = "guest.seg.ss.reserved",
        "outside virtual-8086 mode, bits 31:17 and 11:8 of the access rights of a usable SS are 0",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || rights_in(c, field::GUEST_SS_ACCESS_RIGHTS).reserved_clear();
    low = "guest.seg.ss.granularity.low",
        "outside virtual-8086 mode, G of a usable SS is 0 where a bit of limit[11:0] is 0",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || low_limit_ok(
                rights_in(c, field::GUEST_SS_ACCESS_RIGHTS),
                c.get32(field::GUEST_SS_LIMIT),
            );
    high = "guest.seg.ss.granularity.high",
        "outside virtual-8086 mode, G of a usable SS is 1 where a bit of limit[31:20] is 1",
        |c| unused(c, field::GUEST_SS_ACCESS_RIGHTS)
            || high_limit_ok(
                rights_in(c, field::GUEST_SS_ACCESS_RIGHTS),
                c.get32(field::GUEST_SS_LIMIT),
            );
}

rules! {
    /// LDTR: checked where usable.
    ldtr: "guest LDTR";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS,
    ];
    ti = "guest.seg.ldtr.ti",
        "TI of the selector of a usable LDTR is 0",
        |c| rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS).unusable()
            || c.get(field::GUEST_LDTR_SELECTOR) & 4 == 0;
    base = "guest.seg.ldtr.base",
        "the base of a usable LDTR is canonical",
        |c| rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS).unusable()
            || c.canonical(c.get(field::GUEST_LDTR_BASE));
    kind = "guest.seg.ldtr.type",
        "the type of a usable LDTR is 2",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || rights.kind() == 2
        };
    s = "guest.seg.ldtr.s",
        "S of a usable LDTR is 0",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || !rights.is_code_or_data()
        };
    p = "guest.seg.ldtr.present",
        "a usable LDTR is present",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || rights.present()
        };
    reserved = "guest.seg.ldtr.reserved",
        "bits 31:17 and 11:8 of the access rights of a usable LDTR are 0",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || rights.reserved_clear()
        };
    low = "guest.seg.ldtr.granularity.low",
        "G of a usable LDTR is 0 where a bit of limit[11:0] is 0",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || low_limit_ok(rights, c.get32(field::GUEST_LDTR_LIMIT))
        };
    high = "guest.seg.ldtr.granularity.high",
        "G of a usable LDTR is 1 where a bit of limit[31:20] is 1",
        |c| {
            let rights = rights_in(c, field::GUEST_LDTR_ACCESS_RIGHTS);
            rights.unusable() || high_limit_ok(rights, c.get32(field::GUEST_LDTR_LIMIT))
        };
}

rules! {
    /// TR: always usable.
    tr: "guest TR";
    section: SECTION;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [
        VM_ENTRY_CONTROLS, GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT,
        GUEST_TR_ACCESS_RIGHTS,
    ];
    base = "guest.seg.tr.base",
        "the TR base is canonical",
        |c| c.canonical(c.get(field::GUEST_TR_BASE));
    usable = "guest.seg.tr.unusable",
        "TR is usable",
        |c| !rights_in(c, field::GUEST_TR_ACCESS_RIGHTS).unusable();
    ti = "guest.seg.tr.ti",
        "TI of the TR selector is 0",
        |c| c.get(field::GUEST_TR_SELECTOR) & 4 == 0;
    kind = "guest.seg.tr.type",
        "the type of TR is 11, or 3 where \"IA-32e mode guest\" is 0",
        |c| match rights_in(c, field::GUEST_TR_ACCESS_RIGHTS).kind() {
            11 => true,
            3 => !c.ia32e_guest(),
            _ => false,
        };
    s = "guest.seg.tr.s",
        "S of TR is 0",
        |c| !rights_in(c, field::GUEST_TR_ACCESS_RIGHTS).is_code_or_data();
    p = "guest.seg.tr.present",
        "TR is present",
        |c| rights_in(c, field::GUEST_TR_ACCESS_RIGHTS).present();
    reserved = "guest.seg.tr.reserved",
        "bits 31:17 and 11:8 of the TR access rights are 0",
        |c| rights_in(c, field::GUEST_TR_ACCESS_RIGHTS).reserved_clear();
    low = "guest.seg.tr.granularity.low",
        "G of TR is 0 where a bit of limit[11:0] is 0",
        |c| low_limit_ok(
            rights_in(c, field::GUEST_TR_ACCESS_RIGHTS),
            c.get32(field::GUEST_TR_LIMIT),
        );
    high = "guest.seg.tr.granularity.high",
        "G of TR is 1 where a bit of limit[31:20] is 1",
        |c| high_limit_ok(
            rights_in(c, field::GUEST_TR_ACCESS_RIGHTS),
            c.get32(field::GUEST_TR_LIMIT),
        );
}

rules! {
    /// GDTR and IDTR.
    tables: "guest GDTR and IDTR";
    section: TABLES;
    answer: GUEST_ANSWER;
    runs: OnChange;
    reads: [GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT];
    gdtr_base = "guest.gdtr.base", "the GDTR base is canonical",
        |c| c.canonical(c.get(field::GUEST_GDTR_BASE));
    idtr_base = "guest.idtr.base", "the IDTR base is canonical",
        |c| c.canonical(c.get(field::GUEST_IDTR_BASE));
    gdtr_limit = "guest.gdtr.limit", "bits 31:16 of the GDTR limit are 0",
        |c| c.get32(field::GUEST_GDTR_LIMIT) >> 16 == 0;
    idtr_limit = "guest.idtr.limit", "bits 31:16 of the IDTR limit are 0",
        |c| c.get32(field::GUEST_IDTR_LIMIT) >> 16 == 0;
}
