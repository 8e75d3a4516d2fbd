"""The questions at the end of each chapter, as data: normlib/quiz.py shows them, the instructor's page prints them.

Every wrong answer is a mistake that somebody who has read in a hurry makes, and the chapter has the place that refutes
it. Text is plain: no markup, no TeX, so that it reads the same in a widget, in a page and on a terminal.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """text: what can be chosen. because: a sentence that says why it is right or wrong. section: the heading, in the
    question's chapter, of the place that shows it.
    """

    text: str
    because: str
    section: str


@dataclass(frozen=True)
class Question:
    """asks: the question. answers: what can be chosen, in the order shown. right: number of the right one, from 0."""

    asks: str
    answers: tuple[Answer, ...]
    right: int


def _ask(asks: str, right: int, *answers: tuple[str, str, str]) -> Question:
    return Question(asks, tuple(Answer(*answer) for answer in answers), right)


QUESTIONS: dict[str, tuple[Question, ...]] = {
    "01_why_normalize": (
        _ask(
            "A plain tanh network of 20 layers starts with weights so large that most of its units are saturated. What "
            "reaches its first layer, compared with smaller weights?",
            2,
            (
                "Hardly any gradient, since most derivatives are nearly zero.",
                "The typical derivative does collapse, but the way back also multiplies by the weights, and at the few "
                "units near their threshold that outweighs it.",
                "Saturation",
            ),
            (
                "About the same gradient, since a bounded function holds the scale.",
                "The bound holds the signal on its way forward; nothing makes the factor per layer of the way back "
                "equal 1.",
                "The derivation: one factor per layer",
            ),
            (
                "A larger gradient.",
                "Measured, the gradient at the first layer grows with the gain until it explodes; it vanishes at the "
                "other end, where the weights are small.",
                "Saturation",
            ),
        ),
        _ask(
            "The weights of a normalized layer are multiplied by 10 (ε negligible). What becomes of the loss, and of "
            "its gradient with respect to these weights?",
            1,
            (
                "Neither changes, because the layer does not see the scale of its weights.",
                "The loss does not see it. Differentiating L(aW) = L(W) with respect to W brings out a factor 1/a.",
                "What normalization does to scale",
            ),
            (
                "The loss stays, the gradient is a tenth.",
                "L(aW) = L(W) makes the gradient at aW the gradient at W divided by a.",
                "What normalization does to scale",
            ),
            (
                "The loss stays, the gradient is ten times as large.",
                "It is the other way round: larger weights get smaller gradients, and the layer damps its own step.",
                "What normalization does to scale",
            ),
            (
                "Both change, by amounts that depend on the data.",
                "The normalized output is the same for every batch, whatever the data, so the loss cannot change.",
                "What normalization does to scale",
            ),
        ),
        _ask(
            "A deep ReLU network in which every layer is normalized over a large batch, at initialization. What "
            "happens to the gradient on its way back?",
            0,
            (
                "It grows by a factor per layer that no choice of the gain changes.",
                "The gains cancel, and what is left is at least 1; for ReLU the mean square grows by π/(π − 1).",
                "What it does not repair",
            ),
            (
                "It stays level: normalization fixes the scale in both directions.",
                "It fixes the scale of the signal. The gradient's factor per layer is 1 for linear layers only.",
                "What it does not repair",
            ),
            (
                "It grows or shrinks with the gain, as in the plain network.",
                "Normalizing divides by a deviation that is proportional to the gain, so the gains cancel.",
                "What it does not repair",
            ),
        ),
        _ask(
            "“Batch Norm trains faster because it makes the loss surface smoother.” What did the three networks say, "
            "at one rate for all?",
            2,
            (
                "Yes: where Batch Norm's surface was the smoother one, it trained faster.",
                "At He's gain it was smoother by every measure, and behind at that learning rate.",
                "A smoother loss surface?",
            ),
            (
                "No: Batch Norm's surface was smoother in none of them.",
                "In the ReLU network at He's gain it was smoother by every measure.",
                "A smoother loss surface?",
            ),
            (
                "Smoother and faster did not go together.",
                "At PyTorch's default gain the plain surface was the smoother one, because it was flat, and trained "
                "worst of all.",
                "A smoother loss surface?",
            ),
        ),
    ),
    "02_batch_normalization": (
        _ask(
            "A fully connected layer, Batch Norm in training, two samples per batch. In one batch a channel's values "
            "are 3 and 8, in another 3 and 100. What becomes of the 3 (γ = 1, β = 0)?",
            0,
            (
                "−1 in both.",
                "Two samples land on ±1 whatever they were, as long as they differ.",
                "One batch, one line",
            ),
            (
                "In the first batch it ends nearer to 0, since 8 is nearer to it than 100.",
                "The distance is what the layer divides by: with two values nothing is left of it.",
                "One batch, one line",
            ),
            (
                "The same in both, by its distance from the running mean.",
                "Running averages are kept during training and used afterwards; a training output depends on its batch "
                "alone.",
                "Two functions in one layer",
            ),
        ),
        _ask(
            "What gradient reaches the weights below a Batch Norm layer that has two values per statistic?",
            3,
            (
                "A slightly weaker copy of what arrives, in every batch.",
                "Of n directions n − 2 survive: at n = 2 the directions that are deleted are all there are.",
                "What it removes",
            ),
            (
                "Half of it, since the mean takes one of two directions.",
                "Two directions are deleted, the shift and the stretch of the channel: the share kept is (n − 2)/n.",
                "What it removes",
            ),
            (
                "All of it: normalizing changes values, not gradients.",
                "An input moves every output of its channel through the mean and the variance; these two routes are in "
                "the gradient.",
                "Backward, by hand",
            ),
            (
                "Almost none in almost every batch; in a rare one a large kick.",
                "Only where the two values nearly coincide does ε let something through, and then a lot of it.",
                "What it removes",
            ),
        ),
        _ask(
            "A network was built in Keras with momentum 0.99. You rebuild it in torch and want the same running "
            "averages. What do you set, and do you get them?",
            1,
            (
                "momentum=0.99, and the buffers agree.",
                "torch's momentum is the weight of the new batch: with 0.99 the average would hold little but the last "
                "batch.",
                "Two functions in one layer",
            ),
            (
                "momentum=0.01; running means then agree, running variances do not.",
                "torch averages unbiased variances and Keras biased ones, which is a factor n/(n − 1): 2 at two "
                "values.",
                "Two functions in one layer",
            ),
            (
                "momentum=0.01, and the buffers agree.",
                "The weights agree. What is averaged does not: unbiased variances in torch, biased ones in Keras.",
                "Two functions in one layer",
            ),
        ),
        _ask(
            "The running statistics are perfect. How far apart are training and evaluation outputs at m independent "
            "normal values, m not too small?",
            1,
            (
                "Not at all: the gap is an error of the running averages.",
                "The gap was computed for perfect running statistics, and it is there: a training output uses the "
                "batch's own mean and deviation.",
                "Two functions in one layer",
            ),
            (
                "By about √(3/(2m)) standard deviations.",
                "The batch's mean contributes 1/m to the mean square, its deviation about 1/(2m).",
                "Two functions in one layer",
            ),
            (
                "By the factor n/(n − 1) between the two variances.",
                "That convention concerns what is averaged. With the true mean 0 and deviation 1 in place of the "
                "averages the gap is there all the same.",
                "Two functions in one layer",
            ),
        ),
    ),
    "03_noise_and_batch_size": (
        _ask(
            "Normal values, a small batch. What is true of its biased variance?",
            3,
            (
                "It is too large as often as it is too small.",
                "That is the mean's error. Most batches underestimate the variance, a few overestimate it grossly.",
                "The noise, drawn",
            ),
            (
                "A long average over batches makes it right.",
                "Averaging removes the noise and leaves the bias: its expectation is (n − 1)/n of the variance.",
                "Theory",
            ),
            (
                "Its noise depends on the number of values alone, whatever their distribution.",
                "So does the mean's. The variance's noise depends on the kurtosis too.",
                "Theory",
            ),
            (
                "Most batches underestimate it, so that most outputs are amplified.",
                "The layer divides by the root of an estimate whose distribution leans to the low side.",
                "The noise, drawn",
            ),
        ),
        _ask(
            "Two networks have the same convolutions and as many parameters. With two samples per statistic, the one "
            "that keeps its maps wide loses several points, the other one is lost. What follows?",
            1,
            (
                "Convolution protects a network from small batches.",
                "Both are convolutional. What differs is how wide their maps stay.",
                "How many independent values?",
            ),
            (
                "In this pair the width of the maps decides; by noise, by gradient or by what such a net can compute "
                "is left open.",
                "Noise in the statistics and loss of gradient change together here, and the experiment does not "
                "separate them.",
                "How many independent values?",
            ),
            (
                "With m·H·W values per channel the wide network's statistics are hardly noisy in any layer.",
                "Positions of one image are not independent: in the last layer all 16 together are worth one or two "
                "values.",
                "How many independent values?",
            ),
        ),
        _ask(
            "At m = 4, after training, averaging the statistics of many batches of m at fixed weights gains little or "
            "nothing; statistics of the whole training set gain some points. What was wrong with the running "
            "averages?",
            2,
            (
                "They were noisy.",
                "Averaging over many batches of m ends the noise too, and gained little or nothing.",
                "Training against evaluation",
            ),
            (
                "They were late.",
                "At fixed weights nothing is late any more, and nothing resolved was gained.",
                "Training against evaluation",
            ),
            (
                "They were collected while the layers below were noisy, and at evaluation those are not.",
                "With the whole set as one batch every layer sees the clean output of the layer below; no amount of "
                "averaging over small batches gives that.",
                "Training against evaluation",
            ),
        ),
        _ask(
            "The learning rate is proportional to the batch size. You halve both. What should the running average do?",
            0,
            (
                "Give each batch half the weight it had: τ nearer to 1.",
                "The best weight of the new batch trades noise for lag and comes out proportional to m.",
                "The rule of Momentum Batch Norm",
            ),
            (
                "Keep τ: it belongs to the network, not to the batch.",
                "At a fixed τ the average's noise doubles when the batch is halved.",
                "The rule of Momentum Batch Norm",
            ),
            (
                "Take τ as near to 1 as it goes: the more is averaged, the better.",
                "A larger τ is also later; τ = 0.99 cost about a point at m = 16.",
                "Which momentum?",
            ),
            (
                "Forget faster, since an epoch now has twice as many steps.",
                "The steps are also half as long, and each batch is noisier: both speak for a longer memory.",
                "Which momentum?",
            ),
        ),
    ),
    "04_batch_renormalization": (
        _ask(
            "Batch Renorm without bounds. What does the layer compute in training, within one step?",
            1,
            (
                "Something between Batch Norm's output and evaluation's.",
                "Bounds put its slope and shift between the two. Without them r and d close the gap exactly, for every "
                "batch.",
                "Forward: two numbers close the gap",
            ),
            (
                "What it computes at evaluation.",
                "Stretched by r and shifted by d, Batch Norm's output is (x − μ)/σ exactly.",
                "Forward: two numbers close the gap",
            ),
            (
                "Batch Norm's output, with better statistics for later.",
                "That is the other end, bounds of 1 and 0.",
                "Forward: two numbers close the gap",
            ),
        ),
        _ask(
            "Why does no gradient flow through r and d, if the forward pass is the same either way?",
            2,
            (
                "To save time and memory.",
                "It is no saving but another gradient: attached, the loss turned and climbed, and activations were "
                "inflated in every layer.",
                "Backward: why stop the gradient?",
            ),
            (
                "Because r and d are noisy at small batches, and so would be their gradient.",
                "Attached and unclipped, the layer is a fixed line, whose gradient g/σ has no batch in it at all.",
                "Backward: why stop the gradient?",
            ),
            (
                "To keep the projection that tells the layers below not to shift or stretch a channel.",
                "Attached, the gradient is g/σ: the projection is gone, and steps stretch what the averages then take "
                "back.",
                "Backward: why stop the gradient?",
            ),
        ),
        _ask(
            "At m = 2 and without bounds from the first step on, the first four hidden layers hardly move. What is the "
            "likely reason?",
            0,
            (
                "The backward pass is still Batch Norm's.",
                "Of the two values' gradient n − 2 directions pass, which is none; what trains is the end of the "
                "network.",
                "What it does not repair",
            ),
            (
                "Nearly all corrections are clipped.",
                "Without bounds none is.",
                "What it does not repair",
            ),
            (
                "Rare spikes throw the weights about.",
                "Those are Batch Norm's, and they move layers far. Unclipped, the factor stays below 1/σ: there are no "
                "spikes.",
                "What it does not repair",
            ),
        ),
        _ask(
            "The ramp of the bounds starts at epoch 20. A plot shows Batch Renorm's training accuracy ahead of Batch "
            "Norm's from epoch 5 on. What do you conclude?",
            3,
            (
                "That the corrections help early.",
                "Until the ramp starts r = 1 and d = 0: there are no corrections.",
                "Seed 002: is Batch Renorm ahead early?",
            ),
            (
                "That averages of deviations serve better than averages of variances.",
                "Those enter evaluation only, and cannot move a training accuracy.",
                "Seed 002: is Batch Renorm ahead early?",
            ),
            (
                "That running statistics settled earlier.",
                "At r = 1 and d = 0 the training pass does not use them.",
                "Seed 002: is Batch Renorm ahead early?",
            ),
            (
                "That the two runs differ in something other than the method.",
                "Until its ramp starts Batch Renorm trains exactly as Batch Norm: same gradients, same weights, up to "
                "rounding.",
                "Seed 002: is Batch Renorm ahead early?",
            ),
        ),
    ),
    "05_layer_instance_group": (
        _ask(
            "A fully connected layer of 64 units gets Group Norm with 32 groups. How does it train?",
            1,
            (
                "Well: no sample depends on another, so no set can be too small.",
                "Two of every n directions are removed whatever the set consists of; a group can be too small just as "
                "a batch can.",
                "One formula, other index sets",
            ),
            (
                "Like Batch Norm with two samples: hardly.",
                "Every set holds two values: outputs are ±1, and what reaches the layers below is rare spikes, not a "
                "signal.",
                "A small group is a small batch",
            ),
            (
                "Nearly like Layer Norm, since all groups lie in one sample.",
                "Layer Norm is the other end, one group of 64. Four values per group cost accuracy here, and two "
                "leave nothing.",
                "A small group is a small batch",
            ),
        ),
        _ask(
            "One photograph of a batch gets half the contrast, in all three colors alike. Applied to the images "
            "directly, which layers give for it what they gave before (ε → 0)?",
            2,
            (
                "Batch, Layer and Instance Norm, for each subtracts a mean and divides by a deviation.",
                "Batch Norm's are those of the whole batch: differences between images stay.",
                "What Instance Norm cannot see",
            ),
            (
                "Instance Norm alone.",
                "Layer Norm discards a sample's overall scale and offset, too; only what differs between channels, "
                "such as a tint, it lets through.",
                "What Instance Norm cannot see",
            ),
            (
                "Instance Norm and Layer Norm.",
                "One factor for the whole sample is within what both are blind to.",
                "What Instance Norm cannot see",
            ),
        ),
        _ask(
            "Is Instance Norm the same as Batch Norm with one sample per batch?",
            0,
            (
                "In training only.",
                "Their index sets coincide there. At evaluation Batch Norm divides by running statistics, Instance "
                "Norm by the image's own.",
                "When two of them are one",
            ),
            (
                "Yes: the index sets are equal.",
                "They are equal in training; at evaluation Batch Norm has no set but running averages.",
                "When two of them are one",
            ),
            (
                "No: one averages over samples, the other over positions.",
                "Batch Norm averages over samples and positions; with one sample the positions are what is left.",
                "When two of them are one",
            ),
        ),
        _ask(
            "“Batch Norm needs a batch of at least 32.” What did the comparison on the perceptron say?",
            2,
            (
                "It agrees: below 32 Batch Norm is behind Layer Norm.",
                "At 8 and 16 no difference is resolved; Batch Norm is behind at 4 and 2.",
                '"At least 32"?',
            ),
            (
                "The true number is 8, for any network.",
                "The line ran between 4 and 8 there, and it depends on the network, the task and the way of comparing.",
                '"At least 32"?',
            ),
            (
                "There it is between 4 and 8, and it is no constant of nature.",
                "The noise depends on n and on how alike positions are; another network or task has another line.",
                '"At least 32"?',
            ),
        ),
    ),
    "06_weight_standardization": (
        _ask(
            "Four channels share a group of Group Norm, followed by ReLU. Three of them come with mean 0 and deviation "
            "1, the fourth with mean −2 and deviation 0.5. What becomes of it?",
            1,
            (
                "Group Norm brings it to mean 0 and deviation 1, like the others.",
                "It subtracts one mean and divides by one deviation for the whole group; what sets a channel apart "
                "from its group survives.",
                "A channel slips away",
            ),
            (
                "It is off on nearly every sample, and nothing passes through its output there.",
                "The next layer has one unit less: near an elimination singularity. Its incoming weights hear only of "
                "the group's mean and deviation.",
                "A channel slips away",
            ),
            (
                "The unit is lost for good.",
                "Some units that were never on came back by a later epoch: their group's statistics and the layers "
                "below them move.",
                "How far from the singularities?",
            ),
        ),
        _ask(
            "Why does it matter, behind a ReLU, to subtract each filter's mean?",
            0,
            (
                "It is the same as subtracting the mean of what the filter sees, and behind ReLU that is large.",
                "All inputs are at least 0, so all samples share a large common part; centering the weights "
                "removes it.",
                "What centering does: it centers the input",
            ),
            (
                "Its outputs then have mean 0 over the data.",
                "Only the constant part is removed: at the first layer, where digits share a pattern and not a "
                "constant, the channel means stayed.",
                "What centering does: it centers the input",
            ),
            (
                "It fixes the size of the weights, and so the scale of the output.",
                "That is the other half, scaling, and alone it did nothing here.",
                "What centering does: it centers the input",
            ),
        ),
        _ask(
            "“Weight Standardization lowers the Lipschitz constants of the loss and of its gradient.” Which part holds "
            "(ε → 0)?",
            2,
            (
                "All of it, for centering and for scaling.",
                "With scaling the loss depends on a filter's direction only, so that its gradient grows without bound "
                "towards a constant filter: there is no global constant.",
                "What it does to the Lipschitz constants",
            ),
            (
                "None of it: the network computes the same functions.",
                "Centering is a projection, and here it removed far more than its random share of gradient and "
                "curvature.",
                "What it does to the Lipschitz constants",
            ),
            (
                "Centering cannot raise them; scaling leaves no global constant.",
                "A projection has norm 1; dividing by the deviation brings in a factor that is not bounded.",
                "What it does to the Lipschitz constants",
            ),
        ),
        _ask(
            "In a public Batch-Channel Norm for micro-batches the rate of the estimates starts at 0, and nothing sets "
            "it. How do you notice?",
            3,
            (
                "Training fails: the layer has no statistics.",
                "At rate 0 the first stage is an affine map; Group Norm behind it normalizes.",
                "The rate, and the published value 0",
            ),
            (
                "All outputs are constant.",
                "That is the other end, rate 1 with one sample.",
                "The rate, and the published value 0",
            ),
            (
                "It trains like Batch Norm, and fails at two samples.",
                "The estimates stay at 0 and 1, so no batch enters at all.",
                "The rate, and the published value 0",
            ),
            (
                "Hardly: it trains like Group Norm.",
                "Nothing fails, only the estimates are never learned; no difference to Group Norm was resolved.",
                "The rate, and the published value 0",
            ),
        ),
    ),
    "07_momentum_batch_norm": (
        _ask(
            "m = 2, m₀ = 32, the end of the schedule: λ = 1 − m/m₀ = 0.9375. What batch would have a mean as noisy as "
            "the one that the layer uses (channel at rest)?",
            2,
            (
                "Of 2 samples: only two are in the batch.",
                "Earlier batches are in the history; the noise falls by (1 − λ)/(1 + λ).",
                "How much noise is left?",
            ),
            (
                "Of 32 samples: that is what the schedule aims at.",
                "The end value matches a sample's weight in its own statistic, 1/m₀, not the noise.",
                "How much noise is left?",
            ),
            (
                "Of 62 samples.",
                "The effective size is m(1 + λ)/(1 − λ), which is 2m₀ − m at the end.",
                "How much noise is left?",
            ),
            (
                "Of 62 samples, and its variance is as nearly unbiased as theirs.",
                "Averaging does not remove bias: taken about each batch's own mean, the variance stays at half, "
                "however long the history.",
                "How much noise is left?",
            ),
        ),
        _ask(
            "A constant λ = 0.99 makes training collapse. λ stays at 0.99; which single change lets it train to "
            "the end?",
            1,
            (
                "A correction of the history for its age: it remembers weights that are gone.",
                "With the whole projection the history's error is about twice the noise, uncorrected: staleness "
                "follows from what is missing.",
                "The conflict, measured",
            ),
            (
                "Batch Norm's whole projection in the backward pass, in place of its share 1 − λ.",
                "That alone saves the training; the forward formula stays as it is.",
                "The conflict, measured",
            ),
            (
                "A history that begins with the first batch, and not at 0 and 1.",
                "Training then starts well and collapses all the same.",
                "The conflict, measured",
            ),
        ),
        _ask(
            "In the short trainings at m = 4 the networks of λ(t), T = 8, lose many points under the rule's τ = 0.987 "
            "against a plain τ = 0.9. Why?",
            0,
            (
                "The averages for evaluation hold weights that are gone.",
                "The same networks do far better under averages taken at their final weights: lag is what costs them.",
                "Where the sources disagree",
            ),
            (
                "A larger τ averages too little, and the statistics are noisy.",
                "A larger τ averages more. The rule trades noise for lag.",
                "Where the sources disagree",
            ),
            (
                "The networks trained with 0.987 are worse.",
                "τ acts at evaluation only: these are the same networks.",
                "Where the sources disagree",
            ),
        ),
        _ask(
            "Stored runs at m = m₀ = 32, one each: Batch Norm 92.2 %, Momentum Batch Norm 95.0 %. What can "
            "you conclude?",
            3,
            (
                "Momentum Batch Norm gains 2.8 points.",
                "From the ideal batch size on λ is 0 throughout: the two train identically.",
                "A puzzle: 92.2 against 95.0",
            ),
            (
                "A history steadies training even at 32.",
                "At λ = 0 the history has no weight in training.",
                "The method",
            ),
            (
                "Batch Norm was run on a shallower network.",
                "As stored, both notebooks build a ResNet-18, MBN's with more outputs than there are classes.",
                "A puzzle: 92.2 against 95.0",
            ),
            (
                "The method's training did not make the difference.",
                "If m = 32 enters λ they train as one; the notebooks' loops differ, and BN's leaves training mode for "
                "good after the first epoch.",
                "A puzzle: 92.2 against 95.0",
            ),
        ),
    ),
    "08_side_by_side": (
        _ask(
            "Every method runs at one learning rate, 0.0125, and Momentum Batch Norm ends 80 points below Batch Norm "
            "at m = 4. What does that show?",
            2,
            (
                "Momentum Batch Norm fails at four samples.",
                "With a rate of its own it ends three points behind Batch Norm there, not eighty.",
                "What a fixed learning rate would have said",
            ),
            (
                "The learning rate decides which method leads.",
                "Who leads changes in more than a third of the entries, about half of the time among methods not told "
                "apart; up to 32 what the rate decides is who seems to fail.",
                "What a fixed learning rate would have said",
            ),
            (
                "That this rate suits one of them and not the other.",
                "A comparison at one rate favors the methods which that rate suits.",
                "What a fixed learning rate would have said",
            ),
        ),
        _ask(
            "At m = 1 Batch Norm and Instance Norm have the same function and gradients in training. Why is Batch Norm "
            "near guessing in test, and Instance Norm is not?",
            0,
            (
                "Evaluation replaces each image's statistics by averages over all images.",
                "Instance Norm goes on with the image's own, and keeps in test about what it has in training.",
                "Recorded: accuracy against batch size",
            ),
            (
                "Batch Norm's gradient is gone at m = 1.",
                "The gradients are equal, and in training no difference between the two is resolved.",
                "Recorded: accuracy against batch size",
            ),
            (
                "Batch Norm sees the other images of the step of 32, Instance Norm does not.",
                "Its statistics are taken over virtual batches of m = 1: no other image enters.",
                "Recorded: accuracy against batch size",
            ),
        ),
        _ask(
            "An implementation trains as the right layer does, bit for bit. What is left to check?",
            1,
            (
                "Nothing: forward pass and gradient are right.",
                "In training. Five of the seven mistakes leave training untouched to the last bit.",
                "What they do to training",
            ),
            (
                "What it keeps for evaluation, saves, and does with a batch of one class.",
                "Averages of the wrong thing, averages that are not saved, and evaluation by the batch show nowhere "
                "else.",
                "What they do to training",
            ),
            (
                "Its accuracy on the test set in large batches.",
                "A layer that takes the training path at evaluation passes that; it fails when one class arrives at a "
                "time.",
                "What they do to training",
            ),
        ),
        _ask(
            "Batch-Channel Norm normalizes twice. What does this book's layer keep of a large input for the way back?",
            2,
            (
                "The inputs of both stages.",
                "Two layers in a row would; but the second stage's input can be had again from the first's.",
                "What it costs",
            ),
            (
                "The input of the second stage.",
                "The first stage's input cannot be had from it: a channel whose γ is 0 is lost.",
                "What it costs",
            ),
            (
                "The input of the first stage.",
                "The second stage's input is computed again from it: memory paid for with time.",
                "What it costs",
            ),
        ),
    ),
    "09_choosing": (
        _ask(
            "A network trained with Batch Norm on large batches is fine-tuned at two samples per statistic, the "
            "hardest case, one position per channel. What worked?",
            1,
            (
                "Batch Norm as it is: its running statistics come from many samples.",
                "Training does not use them. With two values hardly anything but spikes passes back.",
                "Fine-tuning with frozen statistics",
            ),
            (
                "Freezing the statistics, at the smaller learning rate.",
                "A fixed line has no such projection, and trains; at the larger rate most runs diverged.",
                "Fine-tuning with frozen statistics",
            ),
            (
                "Batch Renorm, which starts from the running statistics.",
                "It corrects the forward pass only, and is far behind at 2; at 4 it is back beside the frozen network.",
                "Fine-tuning with frozen statistics",
            ),
        ),
        _ask(
            "A narrow residual net on tiny images is converted with the guide's line, Group Norm and standardized "
            "weights, and stays near guessing. Why?",
            0,
            (
                "Where maps end at one position, groups of two channels have two values.",
                "Such a group's gradient is as lost as that of a batch of two; with larger groups the same line did "
                "its work.",
                "A migration",
            ),
            (
                "Group Norm too wants more samples than two.",
                "No other sample enters it; what is too small is the group.",
                "A migration",
            ),
            (
                "Standardized weights do not suit residual nets.",
                "With groups of at least four channels the same line did its work.",
                "A migration",
            ),
        ),
        _ask(
            "A channel's mean is averaged over the last k steps while the weights move. What does a larger k do?",
            3,
            (
                "It lowers the error as 1/√(mk).",
                "That is the average carried over to the weights of today. A plain one has a best k.",
                "Other steps: Cross-Iteration BN",
            ),
            (
                "It raises the error, since old statistics belong to other weights.",
                "Not at first: age costs little over a few steps, and the noise falls.",
                "Other steps: Cross-Iteration BN",
            ),
            (
                "It mends the backward pass at two values per statistic.",
                "That has two statistics of its own, which have to be averaged for themselves.",
                "Other backward statistics: MABN and Online Normalization",
            ),
            (
                "It lowers the error, then raises it again.",
                "Noise is traded for age; carried over by a Taylor expansion, the linear layer's mean goes on "
                "improving.",
                "Other steps: Cross-Iteration BN",
            ),
        ),
        _ask(
            "You want to train a converted network in half precision. What do you do?",
            1,
            (
                "Call model.half().",
                "That converts the parameters and the running averages as well.",
                "In half precision",
            ),
            (
                "Use autocast.",
                "The layers take their statistics in float32 and keep their averages there.",
                "In half precision",
            ),
            (
                "Compute the variance as ⟨x²⟩ − ⟨x⟩², which float16 can hold.",
                "Near 100 the two terms have a spacing of 8 in float16: of a variance of 1 nothing is left.",
                "In half precision",
            ),
        ),
    ),
}
