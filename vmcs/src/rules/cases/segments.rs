//! Cases of the checks on guest segment registers and descriptor tables.

use super::cases;
use crate::field;

/// The cases in virtual-8086 mode, the same for each register; then the rest.
macro_rules! segment {
    (
        $table:ident, $lower:literal,
        $selector:ident, $base:ident, $limit:ident, $rights:ident; $($rest:tt)*
    ) => {
        cases! {
            /// One register.
            $table:
            concat!("guest.seg.", $lower, ".v8086.base") => {
                keeps "another segment", |b| {
                    b.v8086();
                    b.set(field::$selector, 0xffff);
                    b.set(field::$base, 0xffff0)
                };
                breaks "one byte off", |b| { b.v8086(); b.or(field::$base, 1) };
                breaks "bit 32", |b| { b.v8086(); b.or(field::$base, 1 << 32) };
                breaks "bit 63", |b| { b.v8086(); b.or(field::$base, 1 << 63) };
                breaks "another selector", |b| { b.v8086(); b.or(field::$selector, 4) };
            }
            concat!("guest.seg.", $lower, ".v8086.limit") => {
                keeps "FFFFH", |b| b.v8086();
                breaks "FFFEH", |b| { b.v8086(); b.set(field::$limit, 0xfffe) };
                breaks "1FFFFH", |b| { b.v8086(); b.set(field::$limit, 0x1_ffff) };
                breaks "0", |b| { b.v8086(); b.set(field::$limit, 0) };
            }
            concat!("guest.seg.", $lower, ".v8086.rights") => {
                keeps "F3H, unrestricted", |b| { b.v8086(); b.unrestricted() };
                breaks "DPL 0", |b| { b.v8086(); b.set(field::$rights, 0x93) };
                breaks "code", |b| { b.v8086(); b.set(field::$rights, 0xfb) };
                breaks "not present", |b| { b.v8086(); b.set(field::$rights, 0x73) };
                breaks "32-bit", |b| { b.v8086(); b.or(field::$rights, 1 << 14) };
                breaks "unusable", |b| { b.v8086(); b.or(field::$rights, 1 << 16) };
                breaks "bit 8", |b| { b.v8086(); b.or(field::$rights, 1 << 8) };
                breaks "bit 31", |b| { b.v8086(); b.or(field::$rights, 1 << 31) };
            }
            concat!("guest.seg.", $lower, ".granularity.low") => {
                keeps "G 1, 4 KiB", |b| b.set(field::$limit, 0xfff);
                keeps "G 0, 0", |b| {
                    b.clear(field::$rights, 1 << 15);
                    b.set(field::$limit, 0)
                };
                breaks "G 1, bit 0 clear", |b| b.clear(field::$limit, 1);
                breaks "G 1, bit 11 clear", |b| b.clear(field::$limit, 1 << 11);
                breaks "G 1, 0", |b| b.set(field::$limit, 0);
            }
            concat!("guest.seg.", $lower, ".granularity.high") => {
                keeps "G 0, FFFFFH", |b| {
                    b.clear(field::$rights, 1 << 15);
                    b.set(field::$limit, 0xf_ffff)
                };
                breaks "G 0, bit 20", |b| {
                    b.clear(field::$rights, 1 << 15);
                    b.set(field::$limit, 1 << 20)
                };
                breaks "G 0, bit 31", |b| {
                    b.clear(field::$rights, 1 << 15);
                    b.set(field::$limit, 1 << 31)
                };
            }
            concat!("guest.seg.", $lower, ".reserved") => {
                keeps "AVL", |b| b.or(field::$rights, 1 << 12);
                breaks "bit 8", |b| b.or(field::$rights, 1 << 8);
                breaks "bit 11", |b| b.or(field::$rights, 1 << 11);
                breaks "bit 17", |b| b.or(field::$rights, 1 << 17);
                breaks "bit 31", |b| b.or(field::$rights, 1 << 31);
            }
            concat!("guest.seg.", $lower, ".s") => {
                keeps "1", |b| b.or(field::$rights, 1 << 4);
                breaks "0", |b| b.clear(field::$rights, 1 << 4);
            }
            concat!("guest.seg.", $lower, ".present") => {
                keeps "1", |b| b.or(field::$rights, 1 << 7);
                breaks "0", |b| b.clear(field::$rights, 1 << 7);
            }
            $($rest)*
        }
    };
}

/// The cases of a data-segment register but SS.
macro_rules! data_segment {
    (
        $table:ident, $lower:literal,
        $selector:ident, $base:ident, $limit:ident, $rights:ident; $($rest:tt)*
    ) => {
        segment! {
            $table, $lower, $selector, $base, $limit, $rights;
            concat!("guest.seg.", $lower, ".type.accessed") => {
                keeps "unusable, all else set", |b| b.set(field::$rights, 0xffff_ffff);
                keeps "unusable, all else clear", |b| b.set(field::$rights, 1 << 16);
                keeps "read-only data", |b| b.set(field::$rights, 0xc091);
                keeps "expand-down data", |b| b.set(field::$rights, 0xc097);
                breaks "data, not accessed", |b| b.clear(field::$rights, 1);
                breaks "readable code, not accessed", |b| b.set(field::$rights, 0xc09a);
                breaks "data, not accessed, unrestricted", |b| {
                    b.unrestricted();
                    b.clear(field::$rights, 1)
                };
                breaks "data, not accessed, real mode", |b| {
                    b.real();
                    b.clear(field::$rights, 1)
                };
            }
            concat!("guest.seg.", $lower, ".type.readable") => {
                keeps "readable code", |b| b.set(field::$rights, 0xc09b);
                keeps "readable conforming code", |b| b.set(field::$rights, 0xc09f);
                breaks "execute-only code", |b| b.set(field::$rights, 0xc099);
                breaks "execute-only conforming code", |b| b.set(field::$rights, 0xc09d);
            }
            concat!("guest.seg.", $lower, ".dpl") => {
                keeps "conforming code, RPL 3", |b| {
                    b.set(field::$rights, 0xc09f);
                    b.or(field::$selector, 3)
                };
                keeps "data of DPL 3, RPL 3", |b| {
                    b.set(field::$rights, 0xc0f3);
                    b.or(field::$selector, 3)
                };
                keeps "data of DPL 2, RPL 1", |b| {
                    b.set(field::$rights, 0xc0d3);
                    b.or(field::$selector, 1)
                };
                keeps "data of DPL 0, RPL 3, unrestricted", |b| {
                    b.unrestricted();
                    b.or(field::$selector, 3)
                };
                keeps "unusable, RPL 3", |b| {
                    b.set(field::$rights, 1 << 16);
                    b.or(field::$selector, 3)
                };
                breaks "data of DPL 0, RPL 1", |b| b.or(field::$selector, 1);
                breaks "data of DPL 2, RPL 3", |b| {
                    b.set(field::$rights, 0xc0d3);
                    b.or(field::$selector, 3)
                };
                breaks "code of DPL 0, RPL 3", |b| {
                    b.set(field::$rights, 0xc09b);
                    b.or(field::$selector, 3)
                };
            }
            $($rest)*
        }
    };
}

data_segment! {
    ES, "es", GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS;
    "guest.seg.es.base" => {
        keeps "32 bits", |b| b.set(field::GUEST_ES_BASE, 0xffff_ffff);
        keeps "not canonical, unusable", |b| {
            b.or(field::GUEST_ES_ACCESS_RIGHTS, 1 << 16);
            b.set(field::GUEST_ES_BASE, 1 << 63)
        };
        breaks "bit 32", |b| b.set(field::GUEST_ES_BASE, 1 << 32);
        breaks "the upper half", |b| b.set(field::GUEST_ES_BASE, b.upper_half());
    }
}

data_segment! {
    DS, "ds", GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS;
    "guest.seg.ds.base" => {
        keeps "32 bits", |b| b.set(field::GUEST_DS_BASE, 0xffff_ffff);
        keeps "not canonical, unusable", |b| {
            b.or(field::GUEST_DS_ACCESS_RIGHTS, 1 << 16);
            b.set(field::GUEST_DS_BASE, 1 << 63)
        };
        breaks "bit 32", |b| b.set(field::GUEST_DS_BASE, 1 << 32);
        breaks "the upper half", |b| b.set(field::GUEST_DS_BASE, b.upper_half());
    }
}

data_segment! {
    FS, "fs", GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS;
    "guest.seg.fs.base" => {
        keeps "the upper half", |b| b.set(field::GUEST_FS_BASE, b.upper_half());
        keeps "the upper half in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_FS_BASE, b.upper_half())
        };
        breaks "not canonical", |b| b.set(field::GUEST_FS_BASE, b.non_canonical());
        breaks "not canonical, unusable", |b| {
            b.or(field::GUEST_FS_ACCESS_RIGHTS, 1 << 16);
            b.set(field::GUEST_FS_BASE, b.non_canonical())
        };
        breaks "not canonical in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_FS_BASE, 1 << 63)
        };
    }
}

data_segment! {
    GS, "gs", GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS;
    "guest.seg.gs.base" => {
        keeps "the upper half", |b| b.set(field::GUEST_GS_BASE, b.upper_half());
        keeps "the upper half in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_GS_BASE, b.upper_half())
        };
        breaks "not canonical", |b| b.set(field::GUEST_GS_BASE, b.non_canonical());
        breaks "not canonical, unusable", |b| {
            b.or(field::GUEST_GS_ACCESS_RIGHTS, 1 << 16);
            b.set(field::GUEST_GS_BASE, b.non_canonical())
        };
        breaks "not canonical in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_GS_BASE, 1 << 63)
        };
    }
}

segment! {
    CS, "cs", GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS;
    "guest.seg.cs.base" => {
        keeps "32 bits", |b| b.set(field::GUEST_CS_BASE, 0xffff_ffff);
        breaks "bit 32", |b| b.set(field::GUEST_CS_BASE, 1 << 32);
        breaks "the upper half", |b| b.set(field::GUEST_CS_BASE, b.upper_half());
    }
    "guest.seg.cs.type" => {
        keeps "9", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa099);
        keeps "13", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09d);
        keeps "15", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09f);
        keeps "3, unrestricted", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa093)
        };
        breaks "3", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa093);
        breaks "1, unrestricted", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa091)
        };
        breaks "7, unrestricted", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa097)
        };
        breaks "8", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa098);
        breaks "10", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09a);
        breaks "12", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09c);
        breaks "14", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09e);
        breaks "0", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa090);
    }
    "guest.seg.cs.dpl.data" => {
        keeps "0", |b| {
            b.real();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0x93)
        };
        breaks "3", |b| {
            b.real();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xf3)
        };
        breaks "1", |b| {
            b.real();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xb3)
        };
    }
    "guest.seg.cs.dpl.non-conforming" => {
        keeps "3 and 3", |b| b.user();
        breaks "3 and 0", |b| b.or(field::GUEST_CS_ACCESS_RIGHTS, 0x60);
        breaks "0 and 3", |b| b.or(field::GUEST_SS_ACCESS_RIGHTS, 0x60);
        breaks "0 and 3, SS unusable", |b| b.or(field::GUEST_SS_ACCESS_RIGHTS, 0x1_0060);
        breaks "execute-only, 1 and 0", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa0b9);
    }
    "guest.seg.cs.dpl.conforming" => {
        keeps "0 and 3", |b| {
            b.user();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09f)
        };
        breaks "1 and 0", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa0bf);
        breaks "execute-only, 3 and 0", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa0fd);
    }
    "guest.seg.cs.default-size" => {
        keeps "L and D in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xe09b)
        };
        keeps "D in compatibility mode", |b| b.compatibility();
        breaks "L and D in IA-32e mode", |b| b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xe09b);
    }
}

segment! {
    SS, "ss", GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS;
    "guest.seg.ss.rpl" => {
        keeps "3 and 3", |b| b.user();
        keeps "3 and 0, unrestricted", |b| {
            b.unrestricted();
            b.or(field::GUEST_SS_SELECTOR, 3)
        };
        keeps "differ in virtual-8086 mode", |b| {
            b.v8086();
            b.set(field::GUEST_CS_SELECTOR, 0);
            b.set(field::GUEST_CS_BASE, 0)
        };
        breaks "SS 1, CS 0", |b| b.or(field::GUEST_SS_SELECTOR, 1);
        breaks "SS 0, CS 3", |b| b.or(field::GUEST_CS_SELECTOR, 3);
        breaks "SS 1, CS 0, unusable", |b| {
            b.or(field::GUEST_SS_SELECTOR, 1);
            b.or(field::GUEST_SS_ACCESS_RIGHTS, 1 << 16)
        };
    }
    "guest.seg.ss.base" => {
        keeps "32 bits", |b| b.set(field::GUEST_SS_BASE, 0xffff_ffff);
        keeps "not canonical, unusable", |b| {
            b.or(field::GUEST_SS_ACCESS_RIGHTS, 1 << 16);
            b.set(field::GUEST_SS_BASE, 1 << 63)
        };
        breaks "bit 32", |b| b.set(field::GUEST_SS_BASE, 1 << 32);
        breaks "bit 32, compatibility mode", |b| {
            b.compatibility();
            b.set(field::GUEST_SS_BASE, 1 << 32)
        };
    }
    "guest.seg.ss.type" => {
        keeps "7", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc097);
        keeps "0, unusable", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 1 << 16);
        keeps "all ones but DPL, unusable", |b| {
            b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xffff_ff9f)
        };
        breaks "1", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc091);
        breaks "2", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc092);
        breaks "5", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc095);
        breaks "11", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc09b);
        breaks "15", |b| b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc09f);
        breaks "2, compatibility mode", |b| {
            b.compatibility();
            b.set(field::GUEST_SS_ACCESS_RIGHTS, 0xc092)
        };
        breaks "1, real mode", |b| {
            b.real();
            b.set(field::GUEST_SS_ACCESS_RIGHTS, 0x91)
        };
    }
    "guest.seg.ss.dpl.rpl" => {
        keeps "DPL 0, RPL 3, unrestricted", |b| {
            b.unrestricted();
            b.or(field::GUEST_SS_SELECTOR, 3)
        };
        breaks "DPL 0, RPL 3", |b| {
            b.or(field::GUEST_SS_SELECTOR, 3);
            b.or(field::GUEST_CS_SELECTOR, 3)
        };
        breaks "DPL 3, RPL 0, conforming CS", |b| {
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa09f);
            b.or(field::GUEST_SS_ACCESS_RIGHTS, 0x60)
        };
        breaks "DPL 0, RPL 1, unusable", |b| {
            b.or(field::GUEST_SS_SELECTOR, 1);
            b.or(field::GUEST_CS_SELECTOR, 1);
            b.set(field::GUEST_SS_ACCESS_RIGHTS, 1 << 16)
        };
    }
    "guest.seg.ss.dpl.data-cs" => {
        keeps "0", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa093)
        };
        breaks "3", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa093);
            b.or(field::GUEST_SS_ACCESS_RIGHTS, 0x60)
        };
        breaks "1, unusable", |b| {
            b.unrestricted();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0xa093);
            b.set(field::GUEST_SS_ACCESS_RIGHTS, 0x1_0020)
        };
    }
    "guest.seg.ss.dpl.real" => {
        keeps "0", |b| b.real();
        breaks "3", |b| {
            b.real();
            b.set(field::GUEST_CS_ACCESS_RIGHTS, 0x9f);
            b.or(field::GUEST_SS_ACCESS_RIGHTS, 0x60)
        };
    }
}

/// The cases of limit and reserved bits of LDTR and TR.
macro_rules! system {
    (
        $(($lower:literal, $selector:ident, $base:ident, $limit:ident, $rights:ident,
            |$b:ident| $enable:expr))+;
        $($rest:tt)*
    ) => {
        cases! {
            /// LDTR, TR, GDTR, IDTR.
            TABLES:
            $(
                concat!("guest.seg.", $lower, ".ti") => {
                    keeps "RPL 3", |$b| { $enable; $b.or(field::$selector, 3) };
                    breaks "1", |$b| { $enable; $b.or(field::$selector, 4) };
                }
                concat!("guest.seg.", $lower, ".base") => {
                    keeps "the upper half", |$b| { $enable; $b.set(field::$base, $b.upper_half()) };
                    breaks "not canonical", |$b| { $enable; $b.set(field::$base, $b.non_canonical()) };
                    breaks "bit 63", |$b| { $enable; $b.set(field::$base, 1 << 63) };
                    breaks "not canonical, protected mode", |$b| {
                        $b.protected32();
                        $enable;
                        $b.set(field::$base, $b.upper_half() - 1)
                    };
                }
                concat!("guest.seg.", $lower, ".s") => {
                    keeps "0", |$b| $enable;
                    breaks "1", |$b| { $enable; $b.or(field::$rights, 1 << 4) };
                }
                concat!("guest.seg.", $lower, ".present") => {
                    keeps "1", |$b| $enable;
                    breaks "0", |$b| { $enable; $b.clear(field::$rights, 1 << 7) };
                }
                concat!("guest.seg.", $lower, ".reserved") => {
                    keeps "AVL, D/B and L", |$b| { $enable; $b.or(field::$rights, 7 << 12) };
                    breaks "bit 8", |$b| { $enable; $b.or(field::$rights, 1 << 8) };
                    breaks "bit 11", |$b| { $enable; $b.or(field::$rights, 1 << 11) };
                    breaks "bit 17", |$b| { $enable; $b.or(field::$rights, 1 << 17) };
                    breaks "bit 31", |$b| { $enable; $b.or(field::$rights, 1 << 31) };
                }
                concat!("guest.seg.", $lower, ".granularity.low") => {
                    keeps "G 1, FFFH", |$b| {
                        $enable;
                        $b.or(field::$rights, 1 << 15);
                        $b.set(field::$limit, 0xfff)
                    };
                    breaks "G 1, 67H", |$b| {
                        $enable;
                        $b.or(field::$rights, 1 << 15);
                        $b.set(field::$limit, 0x67)
                    };
                    breaks "G 1, FFFFFFFEH", |$b| {
                        $enable;
                        $b.or(field::$rights, 1 << 15);
                        $b.set(field::$limit, 0xffff_fffe)
                    };
                }
                concat!("guest.seg.", $lower, ".granularity.high") => {
                    keeps "G 0, FFFFFH", |$b| { $enable; $b.set(field::$limit, 0xf_ffff) };
                    breaks "G 0, bit 20", |$b| { $enable; $b.set(field::$limit, 1 << 20) };
                    breaks "G 0, bit 31", |$b| { $enable; $b.set(field::$limit, 1 << 31 | 0xfff) };
                }
            )+
            $($rest)*
        }
    };
}

system! {
    ("ldtr", GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS,
        |b| b.ldtr())
    ("tr", GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS,
        |b| b.set(field::GUEST_TR_LIMIT, 0x67));
    "guest.seg.ldtr.type" => {
        keeps "2", |b| b.ldtr();
        keeps "unusable, all ones", |b| {
            b.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0xffff_ffff);
            b.set(field::GUEST_LDTR_SELECTOR, 0xffff);
            b.set(field::GUEST_LDTR_BASE, 1 << 63)
        };
        breaks "0", |b| { b.ldtr(); b.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0x80) };
        breaks "3", |b| { b.ldtr(); b.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0x83) };
        breaks "11", |b| { b.ldtr(); b.set(field::GUEST_LDTR_ACCESS_RIGHTS, 0x8b) };
    }
    "guest.seg.tr.unusable" => {
        keeps "0", |b| b.clear(field::GUEST_TR_ACCESS_RIGHTS, 1 << 16);
        breaks "1", |b| b.or(field::GUEST_TR_ACCESS_RIGHTS, 1 << 16);
        breaks "1, all else clear", |b| b.set(field::GUEST_TR_ACCESS_RIGHTS, 1 << 16);
    }
    "guest.seg.tr.type" => {
        keeps "3 in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x83)
        };
        keeps "11 in protected mode", |b| b.protected32();
        keeps "3 in real mode", |b| {
            b.real();
            b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x83)
        };
        breaks "3 in IA-32e mode", |b| b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x83);
        breaks "9", |b| b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x89);
        breaks "9 in real mode", |b| {
            b.real();
            b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x89)
        };
        breaks "2", |b| b.set(field::GUEST_TR_ACCESS_RIGHTS, 0x82);
    }
    "guest.gdtr.base" => {
        keeps "the upper half", |b| b.set(field::GUEST_GDTR_BASE, b.upper_half());
        breaks "not canonical", |b| b.set(field::GUEST_GDTR_BASE, b.non_canonical());
        breaks "not canonical in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_GDTR_BASE, 1 << 63)
        };
    }
    "guest.idtr.base" => {
        keeps "the upper half", |b| b.set(field::GUEST_IDTR_BASE, b.upper_half());
        breaks "not canonical", |b| b.set(field::GUEST_IDTR_BASE, b.non_canonical());
        breaks "not canonical in protected mode", |b| {
            b.protected32();
            b.set(field::GUEST_IDTR_BASE, 1 << 63)
        };
    }
    "guest.gdtr.limit" => {
        keeps "FFFFH", |b| b.set(field::GUEST_GDTR_LIMIT, 0xffff);
        breaks "10000H", |b| b.set(field::GUEST_GDTR_LIMIT, 0x1_0000);
        breaks "bit 31", |b| b.set(field::GUEST_GDTR_LIMIT, 1 << 31);
    }
    "guest.idtr.limit" => {
        keeps "FFFFH", |b| b.set(field::GUEST_IDTR_LIMIT, 0xffff);
        breaks "10000H", |b| b.set(field::GUEST_IDTR_LIMIT, 0x1_0000);
        breaks "bit 31", |b| b.set(field::GUEST_IDTR_LIMIT, 1 << 31);
    }
}
