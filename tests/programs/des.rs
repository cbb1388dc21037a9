//! DES (FIPS 46-3) as VNC authentication uses it: single blocks, and the bits of each key byte in
//! reverse (RFC 6143, section 7.2.2). For the tests alone.

const INITIAL: [u8; 64] = [
    58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6,
    64, 56, 48, 40, 32, 24, 16, 8, 57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3, 61,
    53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
];
const FINAL: [u8; 64] = [
    40, 8, 48, 16, 56, 24, 64, 32, 39, 7, 47, 15, 55, 23, 63, 31, 38, 6, 46, 14, 54, 22, 62, 30,
    37, 5, 45, 13, 53, 21, 61, 29, 36, 4, 44, 12, 52, 20, 60, 28, 35, 3, 43, 11, 51, 19, 59, 27,
    34, 2, 42, 10, 50, 18, 58, 26, 33, 1, 41, 9, 49, 17, 57, 25,
];
const EXPANSION: [u8; 48] = [
    32, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17, 16, 17, 18,
    19, 20, 21, 20, 21, 22, 23, 24, 25, 24, 25, 26, 27, 28, 29, 28, 29, 30, 31, 32, 1,
];
const PERMUTATION: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19,
    13, 30, 6, 22, 11, 4, 25,
];
const CHOICE_1: [u8; 56] = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60,
    52, 44, 36, 63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29,
    21, 13, 5, 28, 20, 12, 4,
];
const CHOICE_2: [u8; 48] = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2, 41, 52,
    31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];
const SHIFTS: [u32; 16] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];

/// The eight S-boxes, each four rows of sixteen hexadecimal digits.
const BOXES: [&[u8; 64]; 8] = [
    b"e4d12fb83a6c59070f74e2d1a6cb953841e8d62bfc973a50fc8249175b3ea06d",
    b"f18e6b34972dc05a3d47f28ec01a69b50e7ba4d158c6932fd8a13f42b67c05e9",
    b"a09e63f51dc7b428d709346a285ecbf1d6498f30b12c5ae71ad069874fe3b52c",
    b"7de3069a1285bc4fd8b56f03472c1ae9a690cb7df13e52843f06a1d8945bc72e",
    b"2c417ab6853fd0e9eb2c47d150fa3986421bad78f9c5630eb8c71e2d6f09a453",
    b"c1af92680d34e75baf427c9561de0b389ef528c3704a1db6432c95fabe17608d",
    b"4b2ef08d3c975a61d0b7491ae35c2f8614bdc37eaf6805926bd814a7950fe23c",
    b"d2846fb1a93e50c71fd8a374c56b0e927b419ce206adf35821e74a8dfc90356b",
];

/// What a VNC server expects for its challenge.
pub(crate) fn vnc_response(password: &str, challenge: [u8; 16]) -> [u8; 16] {
    let mut key = [0; 8];
    for (byte, letter) in key.iter_mut().zip(password.bytes()) {
        *byte = letter.reverse_bits();
    }
    let mut response = [0; 16];
    for (plain, cipher) in challenge.chunks(8).zip(response.chunks_mut(8)) {
        let block = u64::from_be_bytes(plain.try_into().unwrap());
        cipher.copy_from_slice(&encrypt(u64::from_be_bytes(key), block).to_be_bytes());
    }
    response
}

fn encrypt(key: u64, block: u64) -> u64 {
    const HALF: u64 = (1 << 28) - 1;
    let mut keys = permute(key, 64, &CHOICE_1);
    let permuted = permute(block, 64, &INITIAL);
    let (mut left, mut right) = (permuted >> 32, permuted & 0xffff_ffff);
    for shift in SHIFTS {
        let rotate = |half: u64| (half << shift | half >> (28 - shift)) & HALF;
        keys = rotate(keys >> 28) << 28 | rotate(keys & HALF);
        let mixed = permute(right, 32, &EXPANSION) ^ permute(keys, 56, &CHOICE_2);
        let swapped = left ^ permute(substitute(mixed), 32, &PERMUTATION);
        (left, right) = (right, swapped);
    }
    permute(right << 32 | left, 64, &FINAL)
}

/// Takes the bits that `table` names, in its order. The highest of the `width` bits is number 1.
fn permute(bits: u64, width: u32, table: &[u8]) -> u64 {
    table.iter().fold(0, |result, from| result << 1 | bits >> (width - u32::from(*from)) & 1)
}

fn substitute(bits: u64) -> u64 {
    BOXES.iter().enumerate().fold(0, |result, (number, digits)| {
        let six = bits >> (42 - 6 * number) & 0x3f;
        let row = six >> 4 & 2 | six & 1;
        let column = six >> 1 & 0xf;
        let digit = char::from(digits[usize::try_from(row * 16 + column).unwrap()]);
        result << 4 | u64::from(digit.to_digit(16).unwrap())
    })
}

/// The worked example that the textbooks have.
#[test]
fn des_is_des() {
    assert_eq!(encrypt(0x1334_5779_9bbc_dff1, 0x0123_4567_89ab_cdef), 0x85e8_1354_0f0a_b405);
}
