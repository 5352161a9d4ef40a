//! What a model needs to know of its data.

/// What a model needs to know of its data: the shape of one row and the number of labels.
///
/// A table is one channel of height 1 with its features along the width; a sequence has its steps along the height and
/// the features of a step along the width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Colour planes of an image; 1 for grey images, tables and sequences.
    pub channels: usize,
    /// Rows of an image, or steps of a sequence; 1 for tables.
    pub height: usize,
    /// Columns of an image, or features of a table or of a sequence's step.
    pub width: usize,
    /// Number of labels.
    pub classes: usize,
    /// Number of tokens when the values are tokens, whole numbers from 0 on; 0 for measurements.
    pub vocabulary: usize,
    /// Labels of a row: 1, or one for each step of a sequence.
    pub targets: usize,
}

/// As people say it: `1 × 28 × 28 values in 10 classes`.
impl std::fmt::Display for InputShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { channels, height, width, classes, vocabulary, targets } = self;
        match (vocabulary, channels, height) {
            (0, 1, 1) => write!(f, "{width} values")?,
            (0, ..) => write!(f, "{channels} × {height} × {width} values")?,
            _ => write!(f, "{height} × {width} tokens of {vocabulary}")?,
        }
        write!(f, " in {classes} classes")?;
        if *targets > 1 { write!(f, " at each of {targets} steps") } else { Ok(()) }
    }
}

impl InputShape {
    /// Images with one label each.
    #[must_use]
    pub const fn image(channels: usize, height: usize, width: usize, classes: usize) -> Self {
        Self { channels, height, width, classes, vocabulary: 0, targets: 1 }
    }

    /// Rows of a table with one label each.
    #[must_use]
    pub const fn table(features: usize, classes: usize) -> Self {
        Self::image(1, 1, features, classes)
    }

    /// Sequences of measurements with one label each.
    #[must_use]
    pub const fn sequence(steps: usize, features: usize, classes: usize) -> Self {
        Self::image(1, steps, features, classes)
    }

    /// Sequences of tokens with one label each.
    #[must_use]
    pub const fn tokens(steps: usize, vocabulary: usize, classes: usize) -> Self {
        Self { vocabulary, ..Self::sequence(steps, 1, classes) }
    }

    /// Sequences of tokens, each labelled with the token that follows it.
    #[must_use]
    pub const fn text(steps: usize, vocabulary: usize) -> Self {
        Self { targets: steps, ..Self::tokens(steps, vocabulary, vocabulary) }
    }

    /// Values in one row of the data: channels · height · width.
    #[must_use]
    pub const fn features(&self) -> usize {
        self.channels * self.height * self.width
    }
}
