//! Every key of a recipe: what it means, in which unit, and which values it may have.
//!
//! This one table is behind the checks, the suggestions for a misspelt key, the commented recipe and the reference.

use super::form::Form;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// One key of a recipe.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted path, such as `rounds.deadline_s`, as `--set` takes it.
    pub path: &'static str,
    /// What a number counts, such as `s` or `kbit/s`; empty for pure numbers, texts and choices.
    pub unit: &'static str,
    /// The values that the key may have.
    pub form: Form,
    /// What the key means, as a sentence.
    pub doc: &'static str,
}

/// The largest count: more is a slip of the keyboard, and up to here sums of two fit into 32 bits.
const MANY: i64 = 1_000_000_000;

/// The longest time that a recipe may name, a year: still exact in nanoseconds of 64 bits.
const MAX_TIME_S: f64 = 31_536_000.0;

/// The longest latency, an hour: enough for any link on Earth.
const MAX_LATENCY_MS: f64 = 3_600_000.0;

/// The largest magnitude that a coordinate may have: scales travel as 16-bit floats.
const MAX_SCALE: f64 = 65504.0;

const FACTOR: Form = Form::Real(Included(0.05), Included(10.0));
const POSITIVE: Form = Form::Real(Excluded(0.0), Unbounded);
const NOT_NEGATIVE: Form = Form::Real(Included(0.0), Unbounded);
const SHARE: Form = Form::Real(Excluded(0.0), Included(1.0));
const PROPER_FRACTION: Form = Form::Real(Included(0.0), Excluded(1.0));
const UNIT_INTERVAL: Form = Form::Real(Included(0.0), Included(1.0));
const TIME_S: Form = Form::Real(Excluded(0.0), Included(MAX_TIME_S));
const WIDTH: Form = Form::Real(Included(0.001), Included(1.0));
const QUANTIZERS: Form = Form::Choice(&[
    "f32", "f16", "int8", "ternary", "codebook", "rotated", "eden", "qsgd", "terngrad", "sign", "low-rank", "common",
]);
const FITS: Form = Form::Choice(&["unbiased", "least-error"]);
const BITS: Form = Form::Real(Included(0.1), Included(8.0));
const RANK: Form = Form::Whole(1, 64);
const QUANTIZER_DOC: &str = "What becomes of each value that is sent; ternary keeps its sign and one scale per tensor, codebook its sign and one of 2, 4 or 8 magnitudes fitted to the tensor. From rotated on whole \
     vectors are sent, so the density must be 1: rotated is the shortest; eden (DRIVE with 1 bit), qsgd, terngrad, sign \
     and low-rank are for comparison; common makes integers on a grid that is the same for all, which can be added by who \
     does not see them.";
const BITS_DOC: &str = "Bits per coordinate of rotated, with its headers; whole ones of eden, 1 to 4, and with the sign of codebook, 2 to 4, and of \
     qsgd and common, 2 to 8.";
const FIT_DOC: &str = "Scale of rotated and eden, and rounding of common: least-error needs feedback, unbiased must not have it and lets \
     errors of many clients cancel. qsgd and terngrad are always unbiased.";
const CLIP: Form = Form::Real(Included(1e-6), Included(MAX_SCALE));
const CLIP_DOC: &str = "Largest magnitude of a value of common, the same for all clients; its step is 2^(⌈log₂ clip⌉ + 1 − bits). What is \
     beyond is cut off, and tried again where there is feedback.";
const IMPORTANCE_DOC: &str = "Factors on magnitudes when the largest are chosen, 0.001 to 1000: how names of tensors begin, = and a factor, separated \
     by commas, such as fc3=4, conv1.weight=0.5. Of two that fit the later one holds; other tensors count once.";
const RANK_DOC: &str = "Columns of the two thin matrices that low-rank makes of each.";
const CODER_DOC: &str =
    "What codes positions and symbols; auto takes the smallest result, without enumerative where non-zeros are many.";
const CODERS: Form = Form::Choice(&["auto", "raw", "rice", "enumerative", "adaptive"]);

/// Every key, in the order of the recipe's sections.
pub const KEYS: &[Key] = &[
    key("name", "", Form::Name, "A name for people and for listings."),
    key("seed", "", Form::Whole(0, i64::MAX), "The root of all randomness of the run."),
    key(
        "model.kind",
        "",
        Form::Model,
        "The architecture: softmax is logistic regression; 2nn has two hidden layers of 200 units and mcmahan-cnn two \
         convolutions (both McMahan et al. 2017); textbook-cnn has one 3×3 convolution of 32 channels; lenet-300-100 and lenet-5 are what the literature on pruning \
         prunes; simple-cnn and, for tables, mlp are those of NIID-Bench (Li et al. 2022); vgg9 is that of FedMA (Wang \
         et al. 2020), vgg11s the VGG11* of Sattler et al. (2020); resnet8 and resnet20 are residual networks, mobilenet \
         and efficientnet networks of depthwise-separable convolutions, all with group normalization; for sequences, \
         char-lstm and char-gru have two recurrent layers of 256 units (Reddi et al. 2021) and transformer two blocks of \
         attention; trivial trains nothing and serves to measure everything else; own: and a name is what the program \
         that runs the recipe has registered with the library.",
    ),
    key("model.width", "", FACTOR, "Factor on the channels of mobilenet; no other model reads it."),
    key(
        "model.scaling",
        "",
        Form::Real(Included(-4.0), Included(8.0)),
        "Compound coefficient φ of efficientnet: 1.2^φ times as deep, 1.1^φ times as wide, on images enlarged 1.15^φ \
         times (Tan & Le 2019); no other model reads it.",
    ),
    key(
        "model.channels",
        "",
        Form::Text,
        "Outputs of each layer but the last, separated by commas, such as 30, 10, in place of the architecture's own: \
         filters and units of 2nn, mcmahan-cnn, textbook-cnn, the lenets, simple-cnn, mlp and the vggs, and of resnets the \
         first convolution of each block, in multiples of 8; empty for the usual ones, and for all other models.",
    ),
    key(
        "model.arithmetic",
        "",
        Form::Choice(&["fast", "portable"]),
        "fast uses fused multiply-add where a processor has it, as nearly all of this decade do, and then gives the same \
         bits on all of those; portable rounds products and sums one after the other and gives the same bits on every \
         processor, in up to 1.4 times the time. Training on another number of threads, or on a --device other than the \
         CPU, sums in another order with either.",
    ),
    key(
        "model.weights",
        "",
        Form::Choice(&["f32", "int8", "int4", "ternary", "binary"]),
        "What the weights are rounded to before the model computes with them: clients train, and the server judges, what \
         will be deployed, while updates move the unrounded weights behind them (straight-through, Bengio et al. 2013). \
         int8 and int4 have a scale for each output channel, ternary (Li et al. 2016) and binary (Rastegari et al. 2016) \
         one for each tensor; vectors are not rounded. The model that a run writes has the rounded weights.",
    ),
    key(
        "model.steps",
        "",
        Form::Choice(&["fitted", "learned"]),
        "Where the scales of int8, int4 and ternary come from: fitted takes those that suit the weights, anew in every \
         step; learned makes them parameters, which are trained with the weights (LSQ, Esser et al. 2020), as many as \
         are fitted, and are sent and averaged like all others, but never pruned and under no penalty.",
    ),
    key(
        "data.source",
        "",
        Form::Source,
        "The data set; digits and penguins are part of the program, the other names are what `dunlin data fetch` \
         brings, idx: reads the files of a directory in the format of MNIST, png: images that are rows of pixels, csv: a \
         table, npz: and safetensors: arrays x and y, text: plays or plain text, and none is for the trivial model; \
         docs/DATA.md describes each.",
    ),
    key(
        "data.clients",
        "clients",
        Form::Whole(1, MANY),
        "Among how many clients the training set is split; with clients that bring their own data, how many there are.",
    ),
    key(
        "data.partition",
        "",
        Form::Choice(&["iid", "shards", "dirichlet", "quantity", "key"]),
        "How it is split: iid shuffles and cuts equal parts; shards sorts by label and deals out shards (McMahan et \
         al. 2017); dirichlet deals each label in proportions that it draws (Yurochkin et al. 2019); quantity draws the clients' \
         sizes and deals labels alike (Li et al. 2022); key follows whom each row belongs to, and draws as many as \
         there are clients when there are more.",
    ),
    key(
        "data.alpha",
        "",
        POSITIVE,
        "Concentration of the Dirichlet split, where small means that each client sees few labels, and of the quantity \
         split, where small means that few clients hold most rows.",
    ),
    key("data.shards_per_client", "shards", Form::Whole(1, MANY), "Shards dealt to each client by the shard split."),
    key(
        "data.key_file",
        "",
        Form::Text,
        "For the split by key: a file with one client number per training row; empty for the natural key of the source, \
         such as the hospitals of heart or the islands of penguins.",
    ),
    key("data.label", "", Form::Name, "Column of a CSV file that holds the label."),
    key(
        "data.test_share",
        "",
        Form::Real(Excluded(0.0), Excluded(1.0)),
        "Share held out for the server's evaluation when the source has no test set of its own.",
    ),
    key(
        "data.server_share",
        "",
        PROPER_FRACTION,
        "Share of the training set that no client has: the server asks the clients' models about it when it distills.",
    ),
    key("data.features", "parameters", Form::Whole(1, MANY), "Size of the trivial model."),
    key("rounds.count", "rounds", Form::Whole(1, MANY), "Most rounds to run."),
    key("rounds.cohort", "updates", Form::Whole(1, MANY), "Updates that a full round averages."),
    key(
        "rounds.over_selection",
        "",
        Form::Real(Included(1.0), Unbounded),
        "Clients chosen per update wanted; above 1, the slowest are not waited for.",
    ),
    key(
        "rounds.quorum",
        "",
        SHARE,
        "Smallest share of rounds.cohort whose updates a round may publish with at its deadline.",
    ),
    key(
        "rounds.deadline_s",
        "s",
        TIME_S,
        "Time after which a round closes with what it has, or is abandoned below the quorum.",
    ),
    key("rounds.idle_timeout_s", "s", TIME_S, "Time without progress after which a chosen client counts as lost."),
    key(
        "rounds.min_clients",
        "clients",
        Form::Whole(0, MANY),
        "Clients that must have checked in before the first cohort is chosen; 0 means data.clients.",
    ),
    key(
        "rounds.evaluate_every",
        "rounds",
        Form::Whole(0, MANY),
        "Evaluate on the server's test set every so many rounds; 0 means only at the end.",
    ),
    key(
        "rounds.evaluate",
        "",
        Form::Choice(&["broadcast", "server"]),
        "Which model is evaluated on the test set: broadcast is the one that clients hold and that the run leads to; server \
         the server's own, of which the downlink has not sent everything yet, and serves for comparison only.",
    ),
    key(
        "rounds.federated_evaluation_every",
        "rounds",
        Form::Whole(0, MANY),
        "Ask clients to evaluate on their own data every so many rounds; 0 means never.",
    ),
    key("rounds.target_accuracy", "", UNIT_INTERVAL, "Stop when this test accuracy is reached; 0 means never."),
    key(
        "rounds.target_required",
        "",
        Form::Flag,
        "Whether reaching the target is required: then a run that ends without it ends with an error.",
    ),
    key(
        "rounds.max_abandoned",
        "rounds",
        Form::Whole(1, MANY),
        "Rounds abandoned in a row after which the run gives up.",
    ),
    key(
        "training.optimizer",
        "",
        Form::Choice(&["sgd", "adam", "adamw"]),
        "The local optimizer; its state starts anew in each round.",
    ),
    key("training.learning_rate", "", POSITIVE, "Step size in the first round."),
    key("training.learning_rate_decay", "", POSITIVE, "Factor on the step size per round."),
    key("training.momentum", "", PROPER_FRACTION, "Momentum of SGD; Adam does not read it."),
    key("training.nesterov", "", Form::Flag, "Whether the momentum of SGD looks ahead (Sutskever et al. 2013)."),
    key(
        "training.weight_decay",
        "",
        NOT_NEGATIVE,
        "Weight λ of the penalty λ/2·‖w‖²; with adamw the weights shrink by the step size times λ instead (Loshchilov & \
         Hutter 2019).",
    ),
    key(
        "training.l1",
        "",
        NOT_NEGATIVE,
        "Weight λ of the penalty λ·‖w‖₁: after each step weights move towards 0 by the step size times λ and no further, \
         so that many of them become 0 (Daubechies et al. 2004).",
    ),
    key("training.batch", "examples", Form::Whole(0, MANY), "Examples in a batch; 0 means all of the client's."),
    key("training.epochs", "", Form::Whole(1, MANY), "Passes over the client's data in a round."),
    key(
        "training.proximal",
        "",
        NOT_NEGATIVE,
        "Weight μ of the proximal term μ/2·‖w − ŵ‖² (FedProx, Li et al. 2020); 0 turns it off.",
    ),
    key("training.clip_norm", "", NOT_NEGATIVE, "Largest L2 norm of a batch gradient; 0 means no bound."),
    key(
        "training.augment",
        "",
        Form::Choice(&["none", "flip", "shift", "crop-flip"]),
        "What is done to images on which a client trains: flip mirrors one in two left to right; shift moves \
         them by up to two pixels in each direction, as suits digits; crop-flip does both and moves \
         them by up to four pixels, with zeros where nothing is left (He et al. 2016).",
    ),
    key(
        "training.frozen",
        "",
        Form::Text,
        "Tensors that keep their values, for which no gradient is computed and nothing is sent: names or how they begin, \
         separated by commas, such as conv1, conv2.weight.",
    ),
    key(
        "strategy.kind",
        "",
        Form::Choice(&["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]),
        "What the server does with the mean update: fedavg takes it as it is, fedavgm adds momentum, the others are \
         adaptive (Reddi et al. 2021).",
    ),
    key(
        "strategy.learning_rate",
        "",
        NOT_NEGATIVE,
        "Step size η of the server; 0 means the kind's own: 1 for fedavg and fedavgm, 0.1 for the adaptive kinds.",
    ),
    key("strategy.learning_rate_decay", "", POSITIVE, "Factor on the server's step size per round."),
    key(
        "strategy.momentum",
        "",
        PROPER_FRACTION,
        "Momentum of fedavgm, and β₁ of fedadam and fedyogi; fedadagrad has none (Reddi et al. 2021).",
    ),
    key("strategy.beta2", "", PROPER_FRACTION, "β₂ of fedadam and fedyogi."),
    key("strategy.tau", "", POSITIVE, "Degree of adaptivity τ of the adaptive kinds."),
    key("uplink.density", "", SHARE, "Share of an update's coordinates that are sent; 1 sends all."),
    key("uplink.quantizer", "", QUANTIZERS, QUANTIZER_DOC),
    key("uplink.bits", "bits", BITS, BITS_DOC),
    key("uplink.fit", "", FITS, FIT_DOC),
    key("uplink.clip", "", CLIP, CLIP_DOC),
    key("uplink.rank", "columns", RANK, RANK_DOC),
    key("uplink.coder", "", CODERS, CODER_DOC),
    key(
        "uplink.feedback",
        "",
        UNIT_INTERVAL,
        "Share β of what was left behind that the client tries again next time; 0 turns feedback off.",
    ),
    key(
        "uplink.warmup_rounds",
        "rounds",
        Form::Whole(0, MANY),
        "Rounds over which the density falls geometrically from warmup_density to density; 0 means no warm-up.",
    ),
    key("uplink.warmup_density", "", SHARE, "Density in the first round of the warm-up."),
    key("uplink.importance", "", Form::Text, IMPORTANCE_DOC),
    key(
        "common.coordinates",
        "",
        Form::Choice(&["own", "random", "cyclic", "announced"]),
        "Who chooses the coordinates of an update, uplink.density of all that are left: with own each client sends its \
         largest; with the others all clients of a round send the same, whose positions are not sent with them: random \
         ones of the seed, the seed's in turn, or those that the server announces with the model, where the means of \
         earlier rounds were large. uplink.feedback keeps what is not sent for later.",
    ),
    key(
        "common.exploration",
        "",
        SHARE,
        "Share of announced coordinates that are random ones of the seed instead, so that the others are heard of as well; \
         they are not announced.",
    ),
    key(
        "common.memory",
        "",
        PROPER_FRACTION,
        "Weight of what is known of a coordinate in the moving average, of the magnitudes of means, that the server \
         announces by; the mean of a round that carried it has the rest.",
    ),
    key(
        "downlink.density",
        "",
        SHARE,
        "Share of the global model's coordinates that are sent; 1 sends all. Unless it is written, `uplink.density` times \
         the share of the clients that a round asks, and at least 0.001, so that both directions cost a client alike; 0.01 \
         where the uplink sends all.",
    ),
    key("downlink.quantizer", "", QUANTIZERS, QUANTIZER_DOC),
    key("downlink.bits", "bits", BITS, BITS_DOC),
    key("downlink.fit", "", FITS, FIT_DOC),
    key("downlink.clip", "", CLIP, CLIP_DOC),
    key("downlink.rank", "columns", RANK, RANK_DOC),
    key("downlink.coder", "", CODERS, CODER_DOC),
    key(
        "downlink.feedback",
        "",
        Form::ZeroOrOne,
        "1 keeps what was not sent, the difference between the server's model and the broadcast one, for later rounds; \
         0 forgets it, which with a lossy codec loses most of every step and serves for comparison only.",
    ),
    key(
        "downlink.warmup_rounds",
        "rounds",
        Form::Whole(0, MANY),
        "Rounds over which the density falls geometrically from warmup_density to density; 0 means no warm-up.",
    ),
    key("downlink.warmup_density", "", SHARE, "Density in the first round of the warm-up."),
    key("downlink.importance", "", Form::Text, IMPORTANCE_DOC),
    key(
        "pruning.density",
        "",
        SHARE,
        "Share of the weights that is left after the last step; 1 prunes nothing. Vectors, such as biases, are no weights \
         and are never pruned.",
    ),
    key(
        "pruning.parameters",
        "parameters",
        Form::Whole(0, MANY),
        "Parameters of the whole model, vectors included, that are left after the last step, in place of density; 0 goes \
         by density.",
    ),
    key(
        "pruning.schedule",
        "",
        Form::Choice(&["cubic", "geometric", "threshold"]),
        "How the density d is reached: cubic takes away much at first, d + (1 − d)(1 − i/steps)³ is left after step i (Zhu \
         & Gupta 2017); geometric the same factor each time, d^(i/steps) (Frankle & Carbin 2019); threshold whatever is \
         below pruning.threshold, as long as more than d is left.",
    ),
    key("pruning.first_round", "", Form::Whole(1, MANY), "Round at whose end the first step comes."),
    key(
        "pruning.every",
        "rounds",
        Form::Whole(1, MANY),
        "Rounds from one step to the next, in which what is left recovers.",
    ),
    key("pruning.steps", "steps", Form::Whole(1, MANY), "Number of steps."),
    key(
        "pruning.scope",
        "",
        Form::Choice(&["global", "layer"]),
        "Whether a weight is compared with those of the whole model or of its own tensor, where each keeps the same share.",
    ),
    key(
        "pruning.importance",
        "",
        Form::Choice(&["magnitude", "gradient", "taylor", "scale", "votes"]),
        "Which weights are left: those of the largest magnitude (Han et al. 2015), gradient, product of both (Molchanov et \
         al. 2017), or those that most clients count among their largest after training on their own data (votes); of \
         channels with a norm also those of its largest factor (scale, Liu et al. 2017). For gradient, taylor and votes the \
         round of a step asks its cohort for gradients or votes instead of training.",
    ),
    key(
        "pruning.pattern",
        "",
        Form::Pattern,
        "Which weights may be left together: any; with N:M, such as 2:4, at most N of every M consecutive ones of a row, \
         where the density is N/M, and pruning.density only has to be below 1; with channels whole filters and units, of \
         the models with model.channels, which are then smaller models in training and in their files (Li et al. 2017); of \
         resnets those between the two convolutions of a block, as many of each of the norm's eight groups.",
    ),
    key("pruning.threshold", "", NOT_NEGATIVE, "Magnitude below which the schedule of that name takes weights away."),
    key(
        "pruning.protected",
        "",
        Form::Text,
        "Tensors that are not pruned: names or how they begin, separated by commas, such as conv1, fc3.weight.",
    ),
    key(
        "pruning.regrow",
        "",
        PROPER_FRACTION,
        "Share of what is left that each step takes away beyond the schedule and gives back to the pruned weights with the \
         largest gradients over the clients' data (Evci et al. 2020, Bibikar et al. 2022); the round of a step asks its \
         cohort for them. After the last step mask and density stay.",
    ),
    key(
        "pruning.rewind",
        "",
        Form::Choice(&["none", "ticket", "random"]),
        "What the weights that are left become after a step: none leaves them as they are, ticket gives them the values \
         that they had after pruning.rewind_round (Frankle & Carbin 2019), random does so too but after the last step, \
         when it gives them initial values of other places of their tensor: the control, with the same mask.",
    ),
    key(
        "pruning.rewind_round",
        "",
        Form::Whole(0, MANY),
        "Round whose model ticket goes back to; 0 is the initial model.",
    ),
    key(
        "distillation.kind",
        "",
        Form::Choice(&["none", "ensemble"]),
        "Whether the global model learns, at the end of a round, what the clients' models say: none takes their mean; \
         ensemble begins with the mean and learns the mean of their logits on examples of the server (FedDF, Lin et al. \
         2020).",
    ),
    key(
        "distillation.source",
        "",
        Form::Examples,
        "The examples of the server, whose labels are not looked at: server is what data.server_share holds back, noise is \
         random values, for want of anything better, and the others are what data.source may be, if they have the same \
         shape; of these the training set is taken.",
    ),
    key(
        "distillation.examples",
        "examples",
        Form::Whole(0, MANY),
        "How many of them, the first ones after shuffling; 0 takes all, which noise does not have.",
    ),
    key(
        "distillation.augment",
        "",
        Form::Choice(&["none", "flip", "shift", "crop-flip"]),
        "Where they are few images: distillation.examples of them are drawn and changed at random, as training.augment \
         does; 0 takes as many as there are.",
    ),
    key("distillation.first_round", "", Form::Whole(1, MANY), "First round at whose end the server distills."),
    key("distillation.every", "rounds", Form::Whole(1, MANY), "Rounds from one distillation to the next."),
    key(
        "distillation.overlap",
        "",
        UNIT_INTERVAL,
        "Whether the next round goes on meanwhile: with 0 what was distilled is published, and clients wait for it; above, \
         the mean is published at once, and this share of what the distillation has changed about it is added when the next \
         round is published, which waits only if that is done first. 0.5 is right where clients differ, since they have then \
         corrected a part themselves. The last round waits for its own; what is under way when a target is reached, or the \
         last round abandoned, is dropped.",
    ),
    key("distillation.epochs", "", Form::Whole(1, MANY), "Passes over the examples."),
    key("distillation.batch", "examples", Form::Whole(1, MANY), "Examples in a batch."),
    key("distillation.learning_rate", "", POSITIVE, "Step size of Adam, whose state starts anew each time."),
    key(
        "distillation.temperature",
        "",
        POSITIVE,
        "Temperature T by which logits are divided before they are compared; the loss is multiplied by T² (Hinton et al. \
         2015).",
    ),
    key(
        "distillation.logits",
        "",
        Form::Choice(&["plain", "adjusted"]),
        "How clients' models are heard: plain by their logits (FedDF); adjusted by these less the logarithm of how often the \
         model gives each answer on these examples (Menon et al. 2021), so that a class that a client has not seen is not \
         one that it denies. For labels that are skewed, where each class is about as frequent among the examples.",
    ),
    key(
        "distillation.labels",
        "",
        NOT_NEGATIVE,
        "Weight of the cross-entropy of the examples' own labels; 0 does not look at them, and noise has none.",
    ),
    key(
        "distillation.student",
        "",
        Form::Text,
        "The architecture of a model that learns from the finished one on these examples, as model.kind has them, such as \
         2nn: student.safetensors among the results. Empty for none; distillation.kind may be none.",
    ),
    key(
        "distillation.student_channels",
        "",
        Form::Text,
        "Outputs of each layer of the student but the last, as model.channels has them; empty for the usual ones.",
    ),
    key("distillation.student_epochs", "", Form::Whole(1, MANY), "Passes over the examples for the student."),
    key(
        "limits.max_examples",
        "examples",
        Form::Whole(1, MANY),
        "Most training examples that one update may stand for.",
    ),
    key(
        "limits.max_update_abs",
        "",
        Form::Real(Excluded(0.0), Included(MAX_SCALE)),
        "Largest magnitude of one coordinate of an update.",
    ),
    key("limits.max_clients", "clients", Form::Whole(1, MANY), "Most clients that may be registered."),
    key("limits.packet_ring", "packets", Form::Whole(1, 4096), "Broadcasts kept for clients that missed rounds."),
    key(
        "limits.update_bytes",
        "bytes",
        Form::Whole(0, i64::MAX),
        "Longest frame of an update, headers included: each client sends as many coordinates as fill it, whatever \
         uplink.density is; 0 sets no length.",
    ),
    key(
        "limits.run_bytes",
        "bytes",
        Form::Whole(0, i64::MAX),
        "Bytes of all updates of the run together; what is left is shared out evenly among the updates still to come, as \
         a bound like update_bytes on each; 0 sets no bound.",
    ),
    key(
        "limits.client_bytes",
        "bytes",
        Form::Whole(0, i64::MAX),
        "Bytes of all updates of one client in the run, refused ones included; the client keeps account and shares out what \
         is left over the rounds in which it will be asked, as the server foretells while all clients are there, or else \
         over those in which it may be, as a bound like update_bytes on each. One that has none left takes part no longer. \
         0 sets no bound.",
    ),
    key("size", "", Form::Sections, "Sizes of client; none means that all have the whole model."),
    key(
        "size.width",
        "",
        WIDTH,
        "Share of the channels of each hidden layer that a client of this size has, the first ones, rounded up; inputs and \
         classes it has all (HeteroFL, Diao et al. 2021). One size must have 1. A client of its own machine says its width \
         with --width.",
    ),
    key("size.share", "", POSITIVE, "Share of the clients, relative to the shares of the other sizes."),
    key("network.class", "", Form::Sections, "Kinds of client; none means links and devices that take no time."),
    key("network.class.name", "", Form::Name, "Name for the report."),
    key("network.class.share", "", POSITIVE, "Share of the clients, relative to the shares of the other classes."),
    key("network.class.up_kbps", "kbit/s", Form::Rate, "Upload bandwidth; 0 means infinite."),
    key("network.class.down_kbps", "kbit/s", Form::Rate, "Download bandwidth; 0 means infinite."),
    key(
        "network.class.latency_ms",
        "ms",
        Form::Real(Included(0.0), Included(MAX_LATENCY_MS)),
        "Time that a message is under way, in one direction.",
    ),
    key("network.class.loss", "", PROPER_FRACTION, "Probability that a message is lost and must be sent again."),
    key(
        "network.class.churn",
        "",
        PROPER_FRACTION,
        "Probability that a client leaves in a round before its update is sent.",
    ),
    key(
        "network.class.examples_per_s",
        "examples/s",
        Form::Rate,
        "Training examples that the device processes; 0 means infinitely many.",
    ),
];

/// The sections, in order, each with what it is about.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("model", "What is trained."),
    ("data", "What it is trained on, and how the data lies among the clients."),
    ("rounds", "How many rounds, who takes part, when a round ends, when the run ends."),
    ("training", "What a client does with its data in a round."),
    ("strategy", "What the server does with the mean of the updates."),
    ("uplink", "How updates travel to the server."),
    ("common", "Coordinates that all clients of a round send, in place of each its own."),
    ("downlink", "How the global model travels to the clients."),
    ("pruning", "How the global model loses weights while it is trained."),
    ("distillation", "How the server makes one model of the clients' models, beyond their mean."),
    ("limits", "Bounds on what a client may send."),
    ("size", "One size of client, for models that are chains of layers, without pruning."),
    ("network", "Links and devices of the clients, for simulated time; separate machines have real ones."),
    ("network.class", "One kind of client."),
];

const fn key(path: &'static str, unit: &'static str, form: Form, doc: &'static str) -> Key {
    Key { path, unit, form, doc }
}

impl Key {
    /// The key of this dotted path.
    #[must_use]
    pub fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The section that the key stands in; empty at the top of the recipe.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The key's name inside its section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// What may stand there, in words.
    pub(super) fn values(&self) -> String {
        match self.form {
            Form::Sections => format!("a list of sections, each headed `[[{}]]`", self.path),
            form if self.unit.is_empty() => form.to_string(),
            form => format!("{form} ({})", self.unit),
        }
    }
}
