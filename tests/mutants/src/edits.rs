//! Text put into a file around parts of it.

use std::ops::Range;

/// What is put around, or in place of, a part of a file.
#[derive(Debug)]
struct Edit {
    /// The mutants that it holds.
    ids: Vec<u32>,
    /// From where on to where the part reaches.
    around: Range<usize>,
    /// Before the part, and after it.
    open: String,
    close: String,
    /// In place of something inside of the part.
    inside: Option<(Range<usize>, String)>,
}

#[derive(Debug, PartialEq)]
enum Side {
    Begin,
    Inside,
    End,
}

/// A place where an edit changes the text.
struct Piece<'a> {
    at: usize,
    /// Among those at one place.
    order: (u8, i64, i64, u8),
    /// Bytes of the source that are left out.
    gone: usize,
    new: &'a str,
    number: i64,
    side: Side,
}

#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<Edit>);

impl Edits {
    pub(crate) fn around(
        &mut self,
        ids: Vec<u32>,
        around: Range<usize>,
        open: String,
        close: String,
        inside: Option<(Range<usize>, String)>,
    ) {
        self.0.push(Edit {
            ids,
            around,
            open,
            close,
            inside,
        });
    }

    /// The changed text, and where in it each mutant now stands.
    pub(crate) fn apply(self, source: &str) -> (String, Vec<(u32, usize, usize)>) {
        let mut pieces = Vec::new();
        for (number, edit) in self.0.iter().enumerate() {
            let Range { start, end } = edit.around;
            let (number, len) = (number as i64, (end - start) as i64);
            // What ends somewhere ends before what begins there; of what begins, the longest one first, and of equals the one
            // that was found first, which is around the others. What has no length is text before everything else.
            let opens = if len == 0 { i64::MIN } else { -len };
            let closes = if len == 0 {
                (1, opens, number, 1)
            } else {
                (0, len, -number, 0)
            };
            pieces.push(Piece {
                at: start,
                order: (1, opens, number, 0),
                gone: 0,
                new: &edit.open,
                number,
                side: Side::Begin,
            });
            pieces.push(Piece {
                at: end,
                order: closes,
                gone: 0,
                new: &edit.close,
                number,
                side: Side::End,
            });
            if let Some((place, new)) = &edit.inside {
                let (at, gone) = (place.start, place.len());
                pieces.push(Piece {
                    at,
                    order: (2, 0, number, 0),
                    gone,
                    new,
                    number,
                    side: Side::Inside,
                });
            }
        }
        pieces.sort_by_key(|piece| (piece.at, piece.order));
        let mut text = String::new();
        let mut bounds = vec![(0, 0); self.0.len()];
        let mut at = 0;
        for piece in pieces {
            assert!(piece.at >= at, "edits overlap");
            text += &source[at..piece.at];
            at = piece.at + piece.gone;
            let bounds = &mut bounds[piece.number as usize];
            if piece.side == Side::Begin {
                bounds.0 = text.len();
            }
            text += piece.new;
            if piece.side == Side::End {
                bounds.1 = text.len();
            }
        }
        text += &source[at..];
        let edits = self.0.into_iter().zip(bounds);
        let places = edits
            .flat_map(|(edit, (start, end))| edit.ids.into_iter().map(move |id| (id, start, end)));
        (text, places.collect())
    }
}
