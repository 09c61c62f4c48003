"""The side bar: the pages under each heading, and the pages below a page."""

SIDE_BAR: dict[str, dict[str, str]] = {
    "index": {
        "Start": (
            "quickstart short_answers gallery/index cookbook your_network bring_your_own_network "
            "integer_labels calling_networks coming_from/index"
        ),
        "Sample": (
            "command_line many_samples service fifty_million which_solver your_solver adaptive "
            "few_evaluations fitted_grids warm_start trust paths"
        ),
        "Condition": "guidance inverse operators posteriors ensembles inference many_observations tables energies",
        "Likelihood": "likelihood bits_per_dimension",
        "Train": "your_images training trainer systems networks",
        "Measured": "measured compared peers examined",
        "Theory and design": "four_parts theory/index design",
        "Reference": "reference",
    },
    "coming_from/index": {"": "diffusers k_diffusion edm azula sbi score_sde flow_matching"},
    "theory/index": {
        "": (
            "score_matching ddpm improved_ddpm guidance sdes probability_flow vdm solvers inverse_problems "
            "trust references"
        ),
    },
}
