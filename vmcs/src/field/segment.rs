//! The four fields of each segment register of the guest. SDM "Guest Register State".

use umbra_arch::SegmentName;

use super::{Field, table};

/// The fields of one segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFields {
    /// The selector.
    pub selector: Field,
    /// The base.
    pub base: Field,
    /// The limit, in bytes.
    pub limit: Field,
    /// The access rights, as [`umbra_arch::AccessRights`] has them.
    pub rights: Field,
}

macro_rules! segments {
    ($($name:ident: $selector:ident, $base:ident, $limit:ident, $rights:ident;)*) => {
        #[allow(missing_docs)]
        impl SegmentFields {
            $(pub const $name: Self = Self {
                selector: table::$selector,
                base: table::$base,
                limit: table::$limit,
                rights: table::$rights,
            };)*

            /// All eight.
            pub const ALL: [Self; 8] = [$(Self::$name),*];
        }
    };
}

segments! {
    ES: GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS;
    CS: GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS;
    SS: GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS;
    DS: GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS;
    FS: GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS;
    GS: GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS;
    LDTR: GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS;
    TR: GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS;
}

impl SegmentFields {
    /// The six that instructions name, in the order of their numbers.
    pub const NAMED: [Self; 6] = [Self::ES, Self::CS, Self::SS, Self::DS, Self::FS, Self::GS];
    /// Those that hold data.
    pub const DATA: [Self; 5] = [Self::ES, Self::SS, Self::DS, Self::FS, Self::GS];

    /// Those of a segment register that instructions name.
    #[inline]
    #[must_use]
    pub const fn of(segment: SegmentName) -> Self {
        match segment {
            SegmentName::Es => Self::ES,
            SegmentName::Cs => Self::CS,
            SegmentName::Ss => Self::SS,
            SegmentName::Ds => Self::DS,
            SegmentName::Fs => Self::FS,
            SegmentName::Gs => Self::GS,
        }
    }
}
