//! Distances on the earth, and the shapes that are searched.

use super::cell::{Area, CUTS_MAX, Cell, Position};

/// The earth's quadratic mean radius by WGS 84.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

/// Half of the earth's girth in the Mercator projection.
const MERCATOR_MAX: f64 = 20_037_726.37;

const RADIANS_A_DEGREE: f64 = std::f64::consts::PI / 180.0;

fn radians(degrees: f64) -> f64 {
    degrees * RADIANS_A_DEGREE
}

fn degrees(radians: f64) -> f64 {
    radians / RADIANS_A_DEGREE
}

/// Metres between two positions on one meridian.
fn latitude_distance_m(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (radians(b) - radians(a)).abs()
}

/// Metres between two positions by the haversine formula, step by step as Redis computes them, so that all digits agree.
pub(super) fn distance_m(a: Position, b: Position) -> f64 {
    let v = ((radians(b.longitude) - radians(a.longitude)) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance_m(a.latitude, b.latitude);
    }
    let (a_latitude, b_latitude) = (radians(a.latitude), radians(b.latitude));
    let u = ((b_latitude - a_latitude) / 2.0).sin();
    let haversine = u * u + a_latitude.cos() * b_latitude.cos() * v * v;
    // Rounding may leave a little more than 1 between positions opposite each other.
    2.0 * EARTH_RADIUS_M * haversine.sqrt().min(1.0).asin()
}

/// A circle or a rectangle around its middle, in metres.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Circle { radius_m: f64 },
    Rectangle { width_m: f64, height_m: f64 },
}

impl Shape {
    /// How far a position is from the middle, if it lies within.
    pub(super) fn reach(&self, middle: Position, position: Position) -> Option<f64> {
        match self {
            Self::Circle { radius_m } => {
                let distance = distance_m(middle, position);
                (distance <= *radius_m).then_some(distance)
            }
            Self::Rectangle { width_m, height_m } => {
                if latitude_distance_m(position.latitude, middle.latitude) > height_m / 2.0 {
                    return None;
                }
                let beside = Position { longitude: middle.longitude, ..position };
                if distance_m(position, beside) > width_m / 2.0 {
                    return None;
                }
                Some(distance_m(middle, position))
            }
        }
    }

    /// From the middle to the border: sideways, upwards, and to the farthest point.
    fn extent_m(&self) -> (f64, f64, f64) {
        match self {
            Self::Circle { radius_m } => (*radius_m, *radius_m, *radius_m),
            Self::Rectangle { width_m, height_m } => {
                let (width, height) = (width_m / 2.0, height_m / 2.0);
                (width, height, (width * width + height * height).sqrt())
            }
        }
    }

    /// What surrounds the shape: a little more, since it is wider where the meridians are closer.
    fn bounds(&self, middle: Position) -> Area {
        let (width, height, _) = self.extent_m();
        let up = degrees(height / EARTH_RADIUS_M);
        let sideways_at = |latitude: f64| degrees(width / EARTH_RADIUS_M / radians(latitude).cos());
        let sideways =
            sideways_at(if middle.latitude < 0.0 { middle.latitude - up } else { middle.latitude + up });
        Area {
            west: middle.longitude - sideways,
            east: middle.longitude + sideways,
            south: middle.latitude - up,
            north: middle.latitude + up,
        }
    }

    /// The cells to search for what may lie within, the middle one first.
    pub(super) fn cells(&self, middle: Position) -> Vec<Cell> {
        let (.., farthest) = self.extent_m();
        let bounds = self.bounds(middle);
        let mut cuts = cuts_for(farthest, middle.latitude);
        if cuts > 1 && !is_covered(Cell::of(middle, cuts), &bounds) {
            cuts -= 1;
        }
        let cell = Cell::of(middle, cuts);
        let area = cell.area();
        // With one cut there are so few cells that each is needed.
        let needs = |needed: bool| cuts < 2 || needed;
        let (west, east) = (needs(area.west >= bounds.west), needs(area.east <= bounds.east));
        let (south, north) = (needs(area.south >= bounds.south), needs(area.north <= bounds.north));
        let mut cells = vec![cell];
        for (needed, to_east, to_north) in [
            (north, 0, 1),
            (south, 0, -1),
            (east, 1, 0),
            (west, -1, 0),
            (north && east, 1, 1),
            (north && west, -1, 1),
            (south && east, 1, -1),
            (south && west, -1, -1),
        ] {
            let neighbour = cell.neighbour(to_east, to_north);
            // Where cells are large, neighbours on both sides may be the same one.
            if needed && (cells.len() == 1 || cells.last() != Some(&neighbour)) {
                cells.push(neighbour);
            }
        }
        cells
    }
}

/// Whether a cell and its neighbours reach as far as `bounds`.
fn is_covered(cell: Cell, bounds: &Area) -> bool {
    cell.neighbour(0, 1).area().north >= bounds.north
        && cell.neighbour(0, -1).area().south <= bounds.south
        && cell.neighbour(1, 0).area().east >= bounds.east
        && cell.neighbour(-1, 0).area().west <= bounds.west
}

/// How small cells may be so that nine of them reach `radius_m` far around the middle.
fn cuts_for(radius_m: f64, latitude: f64) -> u32 {
    if radius_m == 0.0 {
        return CUTS_MAX;
    }
    let (mut reach, mut cuts) = (radius_m, 1i32);
    while reach < MERCATOR_MAX {
        reach *= 2.0;
        cuts += 1;
    }
    cuts -= 2;
    // Cells become narrower towards the poles.
    cuts -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    cuts.clamp(1, CUTS_MAX as i32).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;

    #[test]
    fn whatever_lies_within_a_shape_lies_in_one_of_its_cells() {
        let mut state = 9;
        let mut random = |range: f64| next_random(&mut state) as f64 / u64::MAX as f64 * range;
        for round in 0..4_000 {
            // Away from where the grid ends: what lies beyond is not found there, nor is it in Redis.
            let middle = Position { longitude: random(240.0) - 120.0, latitude: random(120.0) - 60.0 };
            let size = 10f64.powf(random(6.0));
            let shape = match round % 2 {
                0 => Shape::Circle { radius_m: size },
                _ => Shape::Rectangle { width_m: size, height_m: size * random(2.0) },
            };
            let reach = degrees(size / EARTH_RADIUS_M) * 1.5;
            let position = Position {
                longitude: middle.longitude + random(reach * 2.0) - reach,
                latitude: middle.latitude + random(reach * 2.0) - reach,
            };
            if shape.reach(middle, position).is_some() {
                let score = super::super::cell::score_of(position) as f64;
                let within = |cell: &Cell| (cell.scores().0..cell.scores().1).contains(&score);
                assert!(shape.cells(middle).iter().any(within), "{shape:?} around {middle:?}: {position:?}");
            }
        }
    }
}
