//! What the parsers ask about the tools that a policy was offered: is there one of this name, and which JSON types
//! does a parameter allow. In: names; out: yes or no, and a set of types. Knows no schema.

use std::ops::{BitOr, BitOrAssign};

/// A set of JSON types that a schema declares for a value; empty means that it declares none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Declared(u8);

impl Declared {
    /// No type is declared.
    pub const EMPTY: Self = Self(0);
    /// `null`.
    pub const NULL: Self = Self(1);
    /// `true` or `false`.
    pub const BOOLEAN: Self = Self(1 << 1);
    /// A number without a fraction.
    pub const INTEGER: Self = Self(1 << 2);
    /// Any number.
    pub const NUMBER: Self = Self(1 << 3);
    /// An object.
    pub const OBJECT: Self = Self(1 << 4);
    /// An array.
    pub const ARRAY: Self = Self(1 << 5);
    /// A string.
    pub const STRING: Self = Self(1 << 6);

    /// Whether every type of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no type is declared.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Declared {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Declared {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// The tools that were offered, as far as parsing needs them.
pub trait Offered {
    /// Whether a tool of exactly this name was offered.
    fn offers(&self, name: &str) -> bool;

    /// The types that the schema of `tool` declares for `parameter`; empty for a tool or a parameter it does not know.
    fn declared(&self, tool: &str, parameter: &str) -> Declared;
}

/// No tools at all: every name is unknown and every parameter undeclared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoTools;

impl Offered for NoTools {
    fn offers(&self, _name: &str) -> bool {
        false
    }

    fn declared(&self, _tool: &str, _parameter: &str) -> Declared {
        Declared::EMPTY
    }
}
