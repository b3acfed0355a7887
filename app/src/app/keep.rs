//! Histograms kept as files: values as CSV, the picture as it stands on the screen as PNG.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use eframe::egui::{ColorImage, Context, Rect};

use super::App;
use crate::edit::Purpose;
use crate::jobs;
use crate::worker::Priority;

/// What waits to be written where the person says.
pub(super) struct Kept {
    /// Name suggested for the file.
    pub name: String,
    /// Its content.
    bytes: Arc<Vec<u8>>,
}

/// Where a picture of the window arrives.
#[derive(Clone, Default)]
pub(super) struct Pictures(Arc<Mutex<Option<Picture>>>);

/// A picture of the window: what to call it, which part is wanted, in pixels, and the whole.
struct Picture {
    name: String,
    part: Rect,
    whole: Arc<ColorImage>,
}

impl App {
    /// Asks where `bytes` shall be written.
    pub(super) fn keep(&mut self, name: String, bytes: Vec<u8>) {
        self.kept = Some(Kept { name, bytes: Arc::new(bytes) });
        self.views.path_box = None;
        self.browse(Purpose::Keep);
    }

    /// Writes what waits to `path`.
    pub(super) fn keep_in(&mut self, path: PathBuf) {
        if let Some(kept) = self.kept.take() {
            self.worker.start_light(Priority::Now, move |_| jobs::keep(path, &kept.bytes));
        }
    }

    /// Asks for the pixels of `rect`, in points, as they are drawn next.
    pub(super) fn take_picture(&mut self, ctx: &Context, name: String, rect: Rect) {
        let (pictures, wake, scale) = (self.pictures.clone(), ctx.clone(), ctx.pixels_per_point());
        ctx.request_screenshot(move |image| {
            *pictures.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Picture { name, part: rect * scale, whole: image });
            wake.request_repaint();
        });
    }

    /// Takes a picture that has arrived, and asks where it shall be written.
    pub(super) fn receive_picture(&mut self) {
        let arrived = self.pictures.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Picture { name, part, whole }) = arrived else { return };
        match png(&whole, part) {
            Ok(bytes) => self.keep(name, bytes),
            Err(error) => self.note(format!("The picture cannot be made: {error}")),
        }
    }
}

/// The part of an image, in pixels, as PNG.
fn png(image: &ColorImage, part: Rect) -> Result<Vec<u8>, image::ImageError> {
    let [width, height] = image.size;
    let within = |value: f32, most: usize| (value.max(0.0).round() as usize).min(most);
    let (left, right) = (within(part.left(), width), within(part.right(), width));
    let (top, bottom) = (within(part.top(), height), within(part.bottom(), height));
    let mut pixels = Vec::with_capacity((right.saturating_sub(left)) * (bottom.saturating_sub(top)) * 3);
    for row in image.pixels.chunks(width.max(1)).take(bottom).skip(top) {
        for pixel in row.iter().take(right).skip(left) {
            pixels.extend([pixel.r(), pixel.g(), pixel.b()]);
        }
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (width, height) = (right.saturating_sub(left) as u32, bottom.saturating_sub(top) as u32);
    image::write_buffer_with_format(
        &mut bytes,
        &pixels,
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use eframe::egui::{Color32, pos2};

    #[test]
    fn a_picture_is_the_part_asked_for() {
        let mut whole = ColorImage::filled([8, 6], Color32::BLACK);
        whole.pixels[2 * 8 + 3] = Color32::RED;
        let bytes = png(&whole, Rect::from_min_max(pos2(3.0, 2.0), pos2(7.0, 20.0))).expect("picture");
        let read = image::load_from_memory(&bytes).expect("png").to_rgb8();
        assert_eq!(read.dimensions(), (4, 4));
        assert_eq!(read.get_pixel(0, 0).0, [255, 0, 0]);
        assert_eq!(read.get_pixel(1, 0).0, [0, 0, 0]);
    }
}
