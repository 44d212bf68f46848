//! Cells of the geohash grid that scores of positions are numbers of.
//!
//! Longitude and latitude are each cut in half, again and again; the bits of both choices in turn, longitude first, number
//! the cell. With 26 cuts of each the number has 52 bits, which a double holds exactly.

/// Cuts of each coordinate in a score.
pub(super) const CUTS_MAX: u32 = 26;

/// The bits of a cell's number that tell of the longitude; the others tell of the latitude.
const LONGITUDE_BITS: u64 = 0xaaaa_aaaa_aaaa_aaaa;
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;

/// A position in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) longitude: f64,
    pub(super) latitude: f64,
}

/// What lies between two meridians and two parallels, in degrees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) west: f64,
    pub(super) east: f64,
    pub(super) south: f64,
    pub(super) north: f64,
}

/// Where scores are defined, as in EPSG:3857: not quite as far as the poles.
pub(super) const WORLD: Area =
    Area { west: -180.0, east: 180.0, south: -85.051_128_78, north: 85.051_128_78 };

/// What the usual geohash texts are defined for.
const GLOBE: Area = Area { west: -180.0, east: 180.0, south: -90.0, north: 90.0 };

impl Area {
    pub(super) fn contains(&self, position: Position) -> bool {
        (self.west..=self.east).contains(&position.longitude)
            && (self.south..=self.north).contains(&position.latitude)
    }
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    number: u64,
    /// How often each coordinate was cut, at least once.
    cuts: u32,
}

impl Cell {
    /// The cell of an area that a position in it lies in.
    fn within(area: &Area, position: Position, cuts: u32) -> Self {
        let scale = (1u64 << cuts) as f64;
        let latitude = (position.latitude - area.south) / (area.north - area.south) * scale;
        let longitude = (position.longitude - area.west) / (area.east - area.west) * scale;
        Self { number: spread(latitude as u32) | spread(longitude as u32) << 1, cuts }
    }

    /// The cell that a position lies in.
    pub(super) fn of(position: Position, cuts: u32) -> Self {
        Self::within(&WORLD, position, cuts)
    }

    /// The smallest cell that a score stands for.
    fn of_score(score: f64) -> Self {
        // A score that is none of ours is taken as a processor would convert it.
        let number = match score {
            score if score < i64::MAX as f64 => (score as i64).cast_unsigned(),
            score if score < u64::MAX as f64 => score as u64,
            _ => 0,
        };
        Self { number, cuts: CUTS_MAX }
    }

    /// Which part of the world it is.
    pub(super) fn area(self) -> Area {
        let scale = (1u64 << self.cuts) as f64;
        let (width, height) = (WORLD.east - WORLD.west, WORLD.north - WORLD.south);
        let (latitude, longitude) = (gather(self.number), gather(self.number >> 1));
        let at = |cut: u32| f64::from(cut) / scale;
        Area {
            west: WORLD.west + at(longitude) * width,
            east: WORLD.west + at(longitude.wrapping_add(1)) * width,
            south: WORLD.south + at(latitude) * height,
            north: WORLD.south + at(latitude.wrapping_add(1)) * height,
        }
    }

    /// The neighbour so many cells (-1, 0 or 1) to the east and to the north; around the world, there is always one.
    pub(super) fn neighbour(self, east: i8, north: i8) -> Self {
        let unused = u64::BITS - self.cuts * 2;
        let step = |own: u64, other: u64, by: i8| {
            let (own_mask, filler) = (own >> unused, other >> unused);
            let bits = self.number & own;
            let moved = match by {
                0 => return bits,
                // With all bits between set, a carry runs through them.
                1 => bits.wrapping_add(filler + 1),
                _ => (bits | filler).wrapping_sub(filler + 1),
            };
            moved & own_mask
        };
        let number = step(LONGITUDE_BITS, LATITUDE_BITS, east) | step(LATITUDE_BITS, LONGITUDE_BITS, north);
        Self { number, cuts: self.cuts }
    }

    /// The scores of all positions in it: from the first, up to and without the second.
    pub(super) fn scores(self) -> (f64, f64) {
        let shift = (CUTS_MAX - self.cuts) * 2;
        ((self.number << shift) as f64, ((self.number + 1) << shift) as f64)
    }
}

/// The score of a position.
pub(super) fn score_of(position: Position) -> u64 {
    Cell::of(position, CUTS_MAX).number
}

/// The position that a score stands for: the middle of its cell.
pub(super) fn position_of(score: f64) -> Position {
    let area = Cell::of_score(score).area();
    Position {
        longitude: ((area.west + area.east) / 2.0).clamp(WORLD.west, WORLD.east),
        latitude: ((area.south + area.north) / 2.0).clamp(WORLD.south, WORLD.north),
    }
}

/// The usual geohash text of a position, of eleven letters, of which the last is always `0`: it has more bits than a score.
pub(super) fn text_of(position: Position) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let number = Cell::within(&GLOBE, position, CUTS_MAX).number;
    let mut text = [b'0'; 11];
    for (at, letter) in text.iter_mut().take(10).enumerate() {
        *letter = ALPHABET[(number >> (47 - at * 5)) as usize & 0x1f];
    }
    text
}

/// Puts the bits of a number on every other place.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, LATITUDE_BITS),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The bits on every other place.
fn gather(number: u64) -> u32 {
    let mut bits = number & LATITUDE_BITS;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::next_random;

    #[test]
    fn a_position_lies_in_its_cell_and_every_neighbour_lies_beside_it() {
        let mut state = 2;
        for _ in 0..2_000 {
            let mut random = |range: f64| (next_random(&mut state) as f64 / u64::MAX as f64 - 0.5) * range;
            let position = Position { longitude: random(359.0), latitude: random(169.0) };
            let found = position_of(score_of(position) as f64);
            assert!((found.longitude - position.longitude).abs() < 0.000_01);
            assert!((found.latitude - position.latitude).abs() < 0.000_01);
            for cuts in [1, 2, 5, 13, CUTS_MAX] {
                let cell = Cell::of(position, cuts);
                assert!(cell.area().contains(position));
                let (first, end) = cell.scores();
                assert!((first..end).contains(&(score_of(position) as f64)));
                assert_eq!(cell.neighbour(1, 0).neighbour(-1, 1).neighbour(0, -1), cell);
                assert_eq!(cell.neighbour(0, 0), cell);
                let (area, beside) = (cell.area(), cell.neighbour(1, 1).area());
                let wraps = beside.west < area.west || beside.south < area.south;
                assert!(wraps || (beside.west - area.east).abs() + (beside.south - area.north).abs() < 1e-9);
            }
        }
    }
}
