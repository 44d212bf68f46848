//! AES-256-GCM against the vectors of its authors: test cases 13 to 16 of "The Galois/Counter Mode of Operation (GCM)" by
//! McGrew and Viega, which NIST gives with SP 800-38D.

use aes_gcm::Nonce;
use aes_gcm::aead::AeadInOut;

use crate::chunk::cipher;

struct Case {
    key: &'static str,
    nonce: &'static str,
    associated: &'static str,
    clear: &'static str,
    sealed: &'static str,
    tag: &'static str,
}

const ZERO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";

const CASES: [Case; 4] = [
    Case {
        key: ZERO_KEY,
        nonce: "000000000000000000000000",
        associated: "",
        clear: "",
        sealed: "",
        tag: "530f8afbc74536b9a963b4f1c4cb738b",
    },
    Case {
        key: ZERO_KEY,
        nonce: "000000000000000000000000",
        associated: "",
        clear: "00000000000000000000000000000000",
        sealed: "cea7403d4d606b6e074ec5d3baf39d18",
        tag: "d0d1c8a799996bf0265b98b5d48ab919",
    },
    Case {
        key: KEY,
        nonce: "cafebabefacedbaddecaf888",
        associated: "",
        clear: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        tag: "b094dac5d93471bdec1a502270e3cc6c",
    },
    Case {
        key: KEY,
        nonce: "cafebabefacedbaddecaf888",
        associated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        clear: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        tag: "76fc6ece0f4e1768cddf8853bb2d551b",
    },
];

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn the_published_vectors_hold_both_ways() {
    for case in &CASES {
        let key: [u8; 32] = bytes(case.key).try_into().unwrap();
        let nonce: [u8; 12] = bytes(case.nonce).try_into().unwrap();
        let (nonce, associated) = (Nonce::from(nonce), bytes(case.associated));
        let mut buf = bytes(case.clear);
        let tag =
            cipher(&key).encrypt_inout_detached(&nonce, &associated, buf.as_mut_slice().into()).unwrap();
        assert_eq!((&buf, tag.to_vec()), (&bytes(case.sealed), bytes(case.tag)));
        cipher(&key).decrypt_inout_detached(&nonce, &associated, buf.as_mut_slice().into(), &tag).unwrap();
        assert_eq!(buf, bytes(case.clear));
        let mut other = associated.clone();
        other.push(0);
        let refused = cipher(&key).decrypt_inout_detached(&nonce, &other, buf.as_mut_slice().into(), &tag);
        assert!(refused.is_err(), "other associated data");
    }
}
