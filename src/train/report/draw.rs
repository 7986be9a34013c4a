//! Draws a chart on a plotters area: bands, curves, axes, and each curve's label at its end, right of the axes, where
//! it covers nothing. In: a chart. Out: marks on whatever the area stands for.

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::{
    BLACK, Cartesian2d, ChartBuilder, Circle, Color, DrawingArea, DrawingAreaErrorKind, DrawingBackend, IntoFont,
    PathElement, Polygon, RGBColor, ShapeStyle, Text, TextStyle, WHITE,
};
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{Chart, band_text, move_apart, shared_band_text, tick};
use super::curve::{Curve, Point};
use super::font::FAMILY;

/// Marks that are drawn per pixel of the picture's nominal size: plotters places in whole marks, and one per pixel
/// would show as steps in the curves.
pub(super) const FINENESS: u32 = 4;

/// Nominal size of the part inside the axes, in pixels.
const PLOT: (u32, u32) = (640, 380);
const LEFT: u32 = 80;
const TOP: u32 = 62;
const BOTTOM: u32 = 56;
/// From the axes to the labels of the curves: the leader, then a piece of the curve's own line.
const LEADER: u32 = 18;
const SAMPLE: u32 = 26;
/// Longer names are cut, in characters.
const LONGEST_NAME: usize = 40;

const TITLE_SIZE: u32 = 20;
const TEXT_SIZE: u32 = 16;
const SMALL_SIZE: u32 = 14;
/// From one label of a line, or of two, to the next.
const ONE_LINE: u32 = 24;
const TWO_LINES: u32 = 38;

const INK: RGBColor = RGBColor(40, 40, 40);
const GREY: RGBColor = RGBColor(105, 105, 105);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Seven colours that readers with any kind of colour blindness tell apart (Okabe and Ito 2008), without the yellow,
/// which is too pale for a line on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    BLACK,
];

/// Lengths of dash and gap; with the colours, 28 groups look different.
const DASHES: [Option<(u32, u32)>; 4] = [None, Some((9, 4)), Some((2, 3)), Some((16, 6))];

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;
type Axes<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Marks for so many nominal pixels.
const fn marks(pixels: u32) -> i32 {
    (pixels * FINENESS).cast_signed()
}

/// The nearest mark; beyond the last there is, the last.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
fn whole(place: f64) -> i32 {
    place.round() as i32
}

/// Where things stand in one picture, in nominal pixels.
struct Layout {
    /// The height inside the axes: more than [`PLOT`]'s only for labels that need it.
    height: u32,
    /// From one label to the next.
    gap: u32,
    /// What stands once for all bands, if they are alike.
    bands: Option<String>,
}

impl Layout {
    fn of(chart: &Chart) -> Self {
        let bands = shared_band_text(&chart.curves);
        let gap = if bands.is_some() { ONE_LINE } else { TWO_LINES };
        let labels = u32::try_from(chart.curves.len()).unwrap_or(u32::MAX).saturating_mul(gap);
        // A picture of thousands of groups would be of no use; its labels overlap instead.
        Self { height: PLOT.1.max(labels.min(4 * PLOT.1)), gap, bands }
    }
}

/// The size that a chart needs, in marks: the labels are as wide as the longest.
pub(super) fn size(chart: &Chart) -> (u32, u32) {
    let layout = Layout::of(chart);
    let names = chart.curves.iter().map(|curve| width(&shortened(&curve.name), TEXT_SIZE));
    let bands =
        chart.curves.iter().filter(|_| layout.bands.is_none()).map(|curve| width(&band_text(curve), SMALL_SIZE));
    let labels = names.chain(bands).max().unwrap_or(0);
    let axes = FINENESS * (LEFT + PLOT.0 + LEADER + SAMPLE + 24);
    // The subtitle and what is said of all bands must fit as well.
    let title = width(&chart.subtitle, SMALL_SIZE) + FINENESS * (LEFT + 16);
    let shared = layout.bands.map_or(0, |text| width(&text, SMALL_SIZE) + FINENESS * (LEFT + PLOT.0 + LEADER + 16));
    ((axes + labels).max(title).max(shared).next_multiple_of(FINENESS), FINENESS * (TOP + layout.height + BOTTOM))
}

/// The width of a text in marks; 0 where the font is missing, which [`super::font::register`] rules out.
fn width(text: &str, size: u32) -> u32 {
    (FAMILY, FINENESS * size)
        .into_font()
        .layout_box(text)
        .map_or(0, |((left, _), (right, _))| (right - left).unsigned_abs())
}

/// Draws the chart on an area of [`size`]. The backend sets text too high by `text_rise` of its size.
pub(super) fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &Chart, text_rise: f64) -> Drawn<DB> {
    let drop = |size: u32| whole(text_rise * f64::from(FINENESS * size));
    area.fill(&WHITE)?;
    titles(area, chart, &drop)?;
    let right = area.dim_in_pixel().0.saturating_sub(FINENESS * (LEFT + PLOT.0));
    let mut axes = ChartBuilder::on(area)
        .margin_top(marks(TOP))
        .margin_right(right)
        .x_label_area_size(marks(BOTTOM))
        .y_label_area_size(marks(LEFT))
        .build_cartesian_2d(chart.x.0..chart.x.1, chart.y.0..chart.y.1)?;
    mesh(&mut axes, chart, drop(SMALL_SIZE))?;
    // Many bands over each other would hide where each ends.
    let opacity = if chart.curves.len() > 6 { 0.08 } else { 0.16 };
    for curve in &chart.curves {
        bands(&mut axes, curve, opacity)?;
    }
    for curve in &chart.curves {
        line(area, &axes, curve)?;
    }
    labels(area, &axes, chart, &drop)
}

/// What the picture and its axes show.
fn titles<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &Chart, drop: &dyn Fn(u32) -> i32) -> Drawn<DB> {
    let Layout { height, bands, .. } = Layout::of(chart);
    let (left, right) = (marks(LEFT), marks(LEFT + PLOT.0));
    area.draw(&Text::new(chart.title.clone(), (left, marks(22) + drop(TITLE_SIZE)), label(TITLE_SIZE, INK)))?;
    area.draw(&Text::new(chart.subtitle.clone(), (left, marks(44) + drop(SMALL_SIZE)), label(SMALL_SIZE, GREY)))?;
    let centred = label(TEXT_SIZE, INK).pos(Pos::new(HPos::Center, VPos::Center));
    let below = marks(TOP + height + 40) + drop(TEXT_SIZE);
    area.draw(&Text::new(chart.x_title.clone(), (i32::midpoint(left, right), below), centred.clone()))?;
    if let Some(bands) = bands {
        area.draw(&Text::new(bands, (right + marks(LEADER), below), label(SMALL_SIZE, GREY)))?;
    }
    // Turned to the left: what is below the text's middle is right of it.
    let upwards = centred.transform(FontTransform::Rotate270);
    area.draw(&Text::new(chart.y_title.clone(), (marks(18) + drop(TEXT_SIZE), marks(TOP + height / 2)), upwards))
}

fn mesh<DB: DrawingBackend>(axes: &mut Axes<'_, DB>, chart: &Chart, drop: i32) -> Drawn<DB> {
    let length = |(low, high): (f64, f64)| high - low;
    axes.configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .bold_line_style(ShapeStyle::from(GRID).stroke_width(FINENESS))
        .axis_style(ShapeStyle::from(GREY).stroke_width(FINENESS))
        .set_all_tick_mark_size(marks(4))
        .x_labels(8)
        .y_labels(6)
        .y_label_offset(drop)
        .x_label_formatter(&|x| tick(*x, length(chart.x)))
        .y_label_formatter(&|y| tick(*y, length(chart.y)))
        .label_style((FAMILY, FINENESS * SMALL_SIZE).into_font().color(&INK))
        .draw()
}

/// The translucent band, in as many pieces as there are stretches with one.
fn bands<DB: DrawingBackend>(axes: &mut Axes<'_, DB>, curve: &Curve, opacity: f64) -> Drawn<DB> {
    let fill = colour(curve).mix(opacity).filled();
    for piece in curve.points.split(|point| point.band.is_none()).filter(|piece| piece.len() > 1) {
        let end = |which: fn((f64, f64)) -> f64| move |point: &Point| point.band.map(|band| (point.x, which(band)));
        let upper = piece.iter().filter_map(end(|band| band.1));
        let lower = piece.iter().rev().filter_map(end(|band| band.0));
        axes.plotting_area().draw(&Polygon::new(upper.chain(lower).collect::<Vec<_>>(), fill))?;
    }
    Ok(())
}

/// The mean, with a dot where seeds end (and where the curve is a single point).
fn line<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, axes: &Axes<'_, DB>, curve: &Curve) -> Drawn<DB> {
    let place = |point: &Point| axes.backend_coord(&(point.x, point.mean));
    stroke(area, curve.points.iter().map(place).collect(), curve)?;
    let last = |pair: &[Point]| matches!(pair, [here, next] if next.n < here.n);
    let ends = curve.points.windows(2).filter(|pair| last(pair)).filter_map(<[Point]>::first);
    let single = curve.points.first().filter(|_| curve.points.len() == 1);
    for point in ends.chain(single) {
        area.draw(&Circle::new(place(point), marks(4), colour(curve).filled()))?;
    }
    Ok(())
}

/// A line in the curve's own colour and dash.
fn stroke<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, points: Vec<(i32, i32)>, curve: &Curve) -> Drawn<DB> {
    let style = ShapeStyle::from(colour(curve)).stroke_width(2 * FINENESS);
    match DASHES.get(curve.style / COLOURS.len() % DASHES.len()).copied().flatten() {
        None => area.draw(&PathElement::new(points, style)),
        Some((dash, gap)) => area.draw(&DashedPathElement::new(points, marks(dash), marks(gap), style)),
    }
}

/// Each curve's name beside its end, with a leader where it had to move, and under it what its band is if bands differ.
fn labels<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    axes: &Axes<'_, DB>,
    chart: &Chart,
    drop: &dyn Fn(u32) -> i32,
) -> Drawn<DB> {
    let Layout { height, gap, bands } = Layout::of(chart);
    let end = |curve: &Curve| curve.points.last().map_or((0, 0), |point| axes.backend_coord(&(point.x, point.mean)));
    let wanted: Vec<f64> = chart.curves.iter().map(|curve| f64::from(end(curve).1)).collect();
    let room = (f64::from(marks(TOP + 10)), f64::from(marks(TOP + height - 14)));
    let placed = move_apart(&wanted, f64::from(marks(gap)), room);
    let left = marks(LEFT + PLOT.0);
    for ((curve, from), to) in chart.curves.iter().zip(wanted).zip(placed) {
        let (from, to) = (whole(from), whole(to));
        let (sample, name) = (left + marks(LEADER), left + marks(LEADER + SAMPLE + 6));
        let thin = ShapeStyle::from(colour(curve).mix(0.7)).stroke_width(FINENESS);
        area.draw(&PathElement::new(vec![(left + marks(3), from), (sample, to)], thin))?;
        stroke(area, vec![(sample, to), (sample + marks(SAMPLE), to)], curve)?;
        area.draw(&Text::new(shortened(&curve.name), (name, to + drop(TEXT_SIZE)), label(TEXT_SIZE, INK)))?;
        if bands.is_none() {
            area.draw(&Text::new(
                band_text(curve),
                (name, to + marks(16) + drop(SMALL_SIZE)),
                label(SMALL_SIZE, GREY),
            ))?;
        }
    }
    Ok(())
}

fn label(size: u32, ink: RGBColor) -> TextStyle<'static> {
    (FAMILY, FINENESS * size).into_font().color(&ink).pos(Pos::new(HPos::Left, VPos::Center))
}

fn colour(curve: &Curve) -> RGBColor {
    COLOURS.get(curve.style % COLOURS.len()).copied().unwrap_or(BLACK)
}

/// A name that fits and that any file can hold: control characters are no XML.
fn shortened(name: &str) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') { '\u{FFFD}' } else { c };
    let mut text: String = name.chars().take(LONGEST_NAME).map(clean).collect();
    if name.chars().count() > LONGEST_NAME {
        text.push('…');
    }
    text
}
