//! Which layers are selected, as indices into the model's layers: one selection, the same everywhere.

use std::collections::BTreeSet;

use eframe::egui;

/// The selected layers, and the one that the inspector shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    layers: BTreeSet<usize>,
    primary: Option<usize>,
}

/// How a click changes the selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Click {
    /// Only this layer.
    Only,
    /// In if it was out, out if it was in (Ctrl).
    Toggle,
    /// Everything shown between the last clicked layer and this one (Shift).
    Range,
}

impl Click {
    /// The click that these modifier keys mean.
    pub fn from_modifiers(modifiers: egui::Modifiers) -> Self {
        if modifiers.shift {
            Self::Range
        } else if modifiers.command {
            Self::Toggle
        } else {
            Self::Only
        }
    }
}

impl Selection {
    /// Whether the layer is selected.
    pub fn contains(&self, layer: usize) -> bool {
        self.layers.contains(&layer)
    }

    /// The layer that the inspector shows.
    pub fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// Number of selected layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The selected layers in model order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.layers.iter().copied()
    }

    /// Selects only `layer`.
    pub fn select(&mut self, layer: usize) {
        self.layers = BTreeSet::from([layer]);
        self.primary = Some(layer);
    }

    /// Selects all of `layers`; the first becomes the primary one unless the present one is among them.
    pub fn select_all(&mut self, layers: impl IntoIterator<Item = usize>) {
        let order: Vec<usize> = layers.into_iter().collect();
        self.layers = order.iter().copied().collect();
        if !self.primary.is_some_and(|layer| self.layers.contains(&layer)) {
            self.primary = order.first().copied();
        }
    }

    /// Selects nothing.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A click on `layer` in a list that shows `order`.
    pub fn click(&mut self, layer: usize, click: Click, order: &[usize]) {
        match click {
            Click::Only => self.select(layer),
            Click::Toggle => {
                if self.layers.remove(&layer) {
                    if self.primary == Some(layer) {
                        self.primary = self.layers.first().copied();
                    }
                } else {
                    self.layers.insert(layer);
                    self.primary = Some(layer);
                }
            }
            Click::Range => {
                let place = |wanted: usize| order.iter().position(|&shown| shown == wanted);
                match (self.primary.and_then(place), place(layer)) {
                    (Some(from), Some(to)) => {
                        // The anchor stays the primary layer, so that a second Shift-click moves the other end.
                        self.layers = order[from.min(to)..=from.max(to)].iter().copied().collect();
                    }
                    _ => self.select(layer),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_follows_the_order_shown() {
        let order = [4, 2, 0, 1, 3];
        let mut selection = Selection::default();
        selection.click(2, Click::Only, &order);
        selection.click(1, Click::Range, &order);
        assert_eq!(selection.iter().collect::<Vec<_>>(), [0, 1, 2]);
        selection.click(4, Click::Range, &order);
        assert_eq!(selection.iter().collect::<Vec<_>>(), [2, 4]);
        assert_eq!(selection.primary(), Some(2));
    }

    #[test]
    fn toggling_the_primary_layer_out_picks_another() {
        let mut selection = Selection::default();
        selection.click(1, Click::Only, &[0, 1]);
        selection.click(0, Click::Toggle, &[0, 1]);
        selection.click(0, Click::Toggle, &[0, 1]);
        assert_eq!((selection.primary(), selection.len()), (Some(1), 1));
    }
}
