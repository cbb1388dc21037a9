//! The picture of a report.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figure::{Curve, Figure};
use crate::peer::Kind;
use crate::report::Report;
use crate::series::Work;

const WIDTH: u32 = 1050;
const TITLE: u32 = 46;
const BARS: u32 = 170;
const CURVES: u32 = 290;

/// Where in a panel the names of the peers end.
const NAMES: i32 = 150;

/// The longest bar.
const LONGEST: f64 = 120.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the bars of the first placement, and the curves.
pub(crate) fn draw(report: &Report) -> Result<String> {
    let mut svg = String::new();
    {
        let size = (WIDTH, TITLE + 2 * BARS + CURVES);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw_all(&root, report).map_err(|error| anyhow!("cannot draw: {error}"))?;
        root.present()?;
    }
    Ok(svg)
}

fn draw_all(root: &Area<'_>, report: &Report) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE);
    write(&title, "CPU time of the proxy: less is better", (12, 8), 17, HPos::Left)?;
    write(&title, &report.machine, (12, 29), 12, HPos::Left)?;
    let (bars, curves) = rest.split_vertically(2 * BARS);
    let figures = report.placed.first().map_or(&[][..], |placed| &placed.figures);
    for (area, work) in bars.split_evenly((2, 3)).iter().zip(Work::ALL) {
        let figures: Vec<_> = figures.iter().filter(|figure| figure.work == work).collect();
        draw_bars(area, work, &figures)?;
    }
    let curves = curves.split_evenly((1, 3));
    let title = "s/GB by sessions that carry it (logarithmic)";
    draw_curves(&curves[0], title, 1.0, Scale::Powers, &report.cost_by_sessions)?;
    let title = "MB of memory by open sessions";
    draw_curves(&curves[1], title, 1e-6, Scale::Linear, &report.memory_by_open)?;
    let title = "µs a session by others open";
    draw_curves(&curves[2], title, 1e6, Scale::Linear, &report.connect_by_open)
}

fn draw_bars(
    area: &Area<'_>,
    work: Work,
    figures: &[&Figure],
) -> Result<(), Box<dyn std::error::Error>> {
    let unit = work.unit();
    write(area, &format!("{}, {}", work.title(), unit.cost.0), (12, 10), 13, HPos::Left)?;
    let longest = figures.iter().map(|figure| figure.cost.median).fold(0.0, f64::max);
    for (figure, row) in figures.iter().zip(0..) {
        let top = 36 + 24 * row;
        let length = (figure.cost.median / longest * LONGEST).max(1.0) as i32;
        let corners = [(NAMES, top), (NAMES + length, top + 15)];
        area.draw(&Rectangle::new(corners, color(figure.kind).filled()))?;
        write(area, figure.kind.short_name(), (NAMES - 6, top + 2), 12, HPos::Right)?;
        let text = crate::report::number(figure.cost.median * unit.cost.1);
        write(area, &text, (NAMES + length + 5, top + 2), 12, HPos::Left)?;
    }
    Ok(())
}

/// How x grows from left to right.
#[derive(Clone, Copy)]
enum Scale {
    Linear,
    /// By powers of two.
    Powers,
}

impl Scale {
    fn place(self, x: u64) -> f64 {
        match self {
            Self::Linear => x as f64,
            Self::Powers => (x.max(1) as f64).log2(),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => format!("{place:.0}"),
            Self::Powers => format!("{:.0}", place.exp2()),
        }
    }
}

fn draw_curves(
    area: &Area<'_>,
    title: &str,
    factor: f64,
    scale: Scale,
    curves: &[Curve],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let right = points().map(|(x, _)| scale.place(*x)).fold(1.0, f64::max);
    let top = points().map(|(_, y)| y * factor).fold(0.0, f64::max);
    write(area, title, (12, 10), 13, HPos::Left)?;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_top(34 + 16 * curves.len() as u32)
        .x_label_area_size(24)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(5)
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 12))
        .x_label_formatter(&|x| scale.label(*x))
        .y_label_formatter(&|y| crate::report::number(*y))
        .draw()?;
    for (curve, row) in curves.iter().zip(0..) {
        let line = curve.points.iter().map(|(x, y)| (scale.place(*x), y * factor));
        chart.draw_series(LineSeries::new(line, color(curve.kind).stroke_width(2)))?;
        let top = 32 + 16 * row;
        let corners = [(60, top + 5), (80, top + 7)];
        area.draw(&Rectangle::new(corners, color(curve.kind).filled()))?;
        write(area, curve.kind.short_name(), (85, top), 12, HPos::Left)?;
    }
    Ok(())
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    align: HPos,
) -> Result<(), Box<dyn std::error::Error>> {
    let color = BLACK.mix(0.85);
    let style = TextStyle::from(("sans-serif", size)).color(&color).pos(Pos::new(align, VPos::Top));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

fn color(kind: Kind) -> RGBColor {
    match kind {
        Kind::Ours | Kind::OursTls => RGBColor(0xc2, 0x41, 0x0c),
        Kind::Haproxy | Kind::HaproxyTls => RGBColor(0x1d, 0x4e, 0xd8),
        Kind::Socat => RGBColor(0x64, 0x74, 0x8b),
        Kind::Websocat => RGBColor(0x0f, 0x76, 0x6e),
        Kind::Python | Kind::PythonTls => RGBColor(0xa1, 0x62, 0x07),
    }
}
