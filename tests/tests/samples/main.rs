//! The bundled sample models: what comes out of every preset, and whether they show what their README promises.

mod effects;
mod exports;
mod fixture;
mod structure;
