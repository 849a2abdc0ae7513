"""What a comparison's table shows, and what each figure is."""

from wm_jax.render.comparison import Column

COLUMNS = (
    Column(
        "score",
        "score",
        "high",
        "Mean return of a controller, evolved for a fixed number of generations, in the "
        "official game, on levels that training never saw",
    ),
    Column(
        "moving_error",
        "moving error",
        "low",
        "Squared error of a pixel that differs by more than 0.1 in some "
        "channel from the median of its episode's frames within 25 steps",
    ),
    Column(
        "rare_error", "rare error", "low", "Squared error of a pixel whose colour is among the rarest 2 % of the game's"
    ),
    Column(
        "moving_explained", "explained", "high", "Share of the variance of moving pixels that reconstructions reproduce"
    ),
    Column("error", "error", "low", "Squared error of a frame, summed over pixels and channels"),
    Column("train_error", "train error", "low", "The same on frames of the training"),
    Column("psnr", "PSNR", "high", "Peak signal-to-noise ratio in dB, the mean over frames"),
    Column("ssim", "SSIM", "high", "Structural similarity, the mean over frames"),
    Column("one_step_moving_error", "1 step", "low", "Moving error of the picture that M predicts one step ahead"),
    Column(
        "fifteen_step_moving_error",
        "15 steps",
        "low",
        "Moving error of the picture that M predicts fifteen steps ahead, by its own predictions",
    ),
    Column("still_fifteen_step_moving_error", "15 steps, still", "", "The same of a picture that stays as it is"),
    Column("kl", "KL", "", "KL from the prior in nats, before any weight or floor"),
    Column("active_units", "active", "", "Units whose mean varies by more than 0.01 over frames"),
    Column("size", "of", "", "Size of z"),
    Column("effective_dimensions", "effective", "", "Dimensions that the KL is shared by, if it were shared evenly"),
    Column(
        "mutual_information",
        "information",
        "",
        "Mutual information of frame and z in nats, at most the logarithm of the number of frames",
    ),
    Column("codes_in_use", "codes", "", "Classes in use, of each choice on average"),
    Column("classes", "of", "", "Classes, or codes in the codebook"),
    Column("perplexity", "perplexity", "", "Classes in use, if all of these were used alike"),
    Column(
        "sample_frechet",
        "samples",
        "low",
        "Frechet distance between frames of the prior and real ones, in the features of a fixed random network: no FID",
    ),
    Column("sample_wasserstein", "samples, patches", "low", "Sliced Wasserstein distance of their patches"),
    Column(
        "probe_linear",
        "state, linear",
        "high",
        "Share of the variance of the state that the game exposes (CarRacing's car, Atari's RAM) that a linear "
        "regression on z predicts, the mean over its numbers",
    ),
    Column("probe_mlp", "state, network", "high", "The same by a small network"),
    Column("mig", "MIG", "high", "Mutual information gap: does each number of the state have a unit to itself?"),
    Column("sap", "SAP", "high", "Separated attribute predictability: the same, by linear regressions on single units"),
    Column("dci_disentanglement", "DCI", "high", "Disentanglement: does each unit serve one number of the state?"),
    Column("updates_per_second", "updates/s", "high", "Of V's training, reports included"),
    Column("encoded_per_second", "encoded/s", "high", "Frames that V encodes in a second"),
    Column("steps", "updates", "", "That V's training had time for"),
    Column("parameters", "parameters", "", "Numbers that are learned"),
)
