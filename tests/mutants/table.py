"""Faults made by hand. Each has slipped through, or could; the tests beside it see it

`old` stands in its module exactly once; `new` takes its place. Anchor on short texts that stay. `why`: what the fault does."""
from typing import NamedTuple


class Mutant(NamedTuple):
    name: str         # What is wrong
    module: str       # otseg/MODULE.py
    old: str          # Found exactly once
    new: str
    tests: list[str]  # tests/FILE.py::test, each of which fails
    why: str          # What a user would get


MUTANTS = []


def of(module, *tests):
    "Add mutants (name, old, new, why) of a module that these tests see"
    def add(name, old, new, why): MUTANTS.append(Mutant(name, module, old, new, list(tests), why))
    return add


# transport
T = 'transport/test_definitions.py::'
of('transport/solvers', f'{T}test_the_textbook_stops_by_the_mean_change')(
    'stops by the largest change', '(f - before).abs().mean() < tol', '(f - before).abs().amax() < tol',
    'more iterations than the published rule takes')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'log solver measures in units of mass', '(mass * ratio.abs()).sum(-1) / mass.sum(-1) <= tol',
    '(mass * ratio.abs()).sum(-1) <= tol',
    'large masses never converge, small ones at once')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'scaling measures in units of mass', '- a).abs().sum(-1) / a.sum(-1)', '- a).abs().sum(-1)', 'the same')
of('transport/solvers', f'{T}test_errors_are_shares_of_the_mass')(
    'Newton measures in units of mass', 'error = torch.linalg.vector_norm(residual, 1, (1, 2)) / mass',
    'error = torch.linalg.vector_norm(residual, 1, (1, 2))', 'the same')
of('transport/solvers', f'{T}test_row_error_by_hand', f'{T}test_errors_are_shares_of_the_mass')(
    'row error in units of mass', 'plan.sum(1).sub_(a).abs_().sum(-1) / a.sum(-1)', 'plan.sum(1).sub_(a).abs_().sum(-1)',
    'an error that depends on the unit')
of('transport/entropic', f'{T}test_gradients_of_the_masses')(
    'gradient of b centred by itself', '(alpha - level, beta + level +',
    '(alpha - level, beta - (b * beta).sum(1, keepdim=True) / b.sum(1, keepdim=True) +',
    'what more mass brings is lost')
of('transport/entropic', f'{T}test_gradients_of_the_masses')(
    'gradients of the masses not centred', '(alpha - level, beta + level +', '(alpha, beta +',
    'a constant of no meaning in both gradients')
of('transport/entropic', f'{T}test_unequal_masses_are_refused_in_any_problem')(
    'unequal masses beside equal ones', 'bool(_equal_totals(a, b).all())', 'bool(_equal_totals(a, b).any())',
    'a plan of neither marginal')
of('transport/mpsa', f'{T}test_equal_shares_have_the_scale_of_the_published_map')(
    'even shares without 1/n', 'return scale / n * scores if masses is None', 'return scale * scores if masses is None',
    'logits of the softmax twin n times too large')
of('transport/mpsa', f'{T}test_dot_products_are_over_sqrt_d')(
    'dot products not over sqrt d', "'b k n d, b m d -> b k m n') / self.dim**0.5", "'b k n d, b m d -> b k m n')",
    'another attention than Eq 11')
of('transport/mpsa', f'{T}test_attention_weights_are_dropped_out')(
    'no dropout on attention weights', "shares = self.dropout(weights if self.mix == 'plan' else weights * scores)",
    "shares = weights if self.mix == 'plan' else weights * scores", 'another training')


# model
M, PARITY = 'model/test_published.py::', 'model/test_parity.py::'
of('model/decoder', f'{PARITY}test_layers', f'{PARITY}test_logits', f'{M}test_a_decoder_layer_drops_out_in_three_places')(
    'GELU in the decoder', 'F.relu(self.linear1(x))', 'F.gelu(self.linear1(x))', 'published checkpoints give other maps')
of('model/decoder', f'{PARITY}test_layers', f'{PARITY}test_logits', f'{M}test_a_decoder_layer_drops_out_in_three_places')(
    'residual from before the attention', 'self.norm2(x + self.dropout(', 'self.norm2(tokens + self.dropout(', 'the same')
for name, old, new in (('of the attention', 'tokens + self.dropout(out.tokens)', 'tokens + out.tokens'),
                       ('of the hidden units', 'hidden = self.dropout(F.relu(self.linear1(x)))',
                       'hidden = F.relu(self.linear1(x))'),
                       ('of the feed-forward net', 'self.dropout(self.linear2(hidden))', 'self.linear2(hidden)')):
    of('model/decoder', f'{M}test_a_decoder_layer_drops_out_in_three_places')(f'no dropout {name}', old, new,
    'another training')
of('model/otseg', f'{PARITY}test_logits')(
    'corners aligned in the enlargement', "size=self.size, mode='bilinear', align_corners=False",
    "size=self.size, mode='bilinear', align_corners=True", 'masks shifted by up to half a token')
of('model/clip', f'{PARITY}test_encoder')(
    'corners aligned in the position embedding', "mode=mode, align_corners=False, **how)",
    "mode=mode, align_corners=True, **how)", 'other tokens at other sizes')
of('model/clip', f'{PARITY}test_encoder', f'{M}test_visual_prompts_are_replaced_and_leave')(
    'visual prompts pile up', 'prompts.expand(len(x), -1, -1), x[:, -m:]]', 'prompts.expand(len(x), -1, -1), x[:, 1:]]',
    'published checkpoints give other tokens')
of('model/clip', f'{M}test_visual_prompts_are_replaced_and_leave')(
    'visual prompts stay', 'elif self.vpt_tokens and i == self.vpt_depth: x = torch.cat([x[:, :e], x[:, -m:]], 1)', '',
    'blocks beyond the depth attend to prompts')
of('model/clip', f'{PARITY}test_encoder', f'{M}test_the_class_embedding_counts_twice_as_published')(
    'class embedding once', '* (2 if double else 1)', '', 'published checkpoints give other tokens')
of('model/clip', f'{M}test_the_norm_of_the_prompts_comes_before_the_last_norm')(
    'norm of the prompts left out', 'self.project(self.prompt_norm(torch.cat([x[:, :e], x[:, -m:]], 1)), grid)',
    'self.project(torch.cat([x[:, :e], x[:, -m:]], 1), grid)', 'the same')
B = 'model/test_backbones.py::'
of('model/clip', f'{B}test_a_patch_is_what_the_tower_gives_for_it_alone')(
    "keys of SigLIP's pool for its values", 'pool.kv(x).chunk(2, -1)[1]', 'pool.kv(x).chunk(2, -1)[0]', 'meaningless tokens')
of('model/clip', f'{B}test_the_picture_is_the_clips_own')(
    'a mean of patches taken for a class token', "if v.pool_type == 'tok': return", 'if True: return',
    'a picture that CLIPA never trained')
of('model/clip', f'{B}test_siglip_from_a_file')(
    'text tower without its name', '(CustomTextCLIP if apart else CLIP)', 'CLIP', 'no file of SigLIP can be read')
of('model/clip', f'{B}test_statistics_and_activation_are_those_of_open_clip')(
    'another activation than that of training', 'check(trained == here or', 'check(True or', 'plausible tokens, and worse')
of('model/config', f'{B}test_statistics_and_activation_are_those_of_open_clip')(
    'statistics by the architecture alone', "== ('ViT-L-14', 'laion2b_s32b_b82k')", "== ('ViT-L-14', '')",
    'pictures in other colours than in training')
of('model/clip', 'model/test_dense.py::test_rules_by_their_words')(
    'positions stretched to the grid', '(g + .1) / s', 'g / s', 'other tokens than the published code gives')
of('model/dense', 'model/test_dense.py::test_rules_by_their_words')(
    'narrow neighbourhood', '/ (2 * std**2)', '/ std**2', 'the same')
of('model/otseg', f'{M}test_norms_may_have_a_decay_of_their_own')(
    'norms decay like the others', 'lr=lr, weight_decay=norm_weight_decay)', 'lr=lr, weight_decay=weight_decay)',
    'an option without effect')
of('model/losses', f'{M}test_the_threshold_of_pseudo_labels_is_a_probability')(
    'threshold before the sigmoid', 'best.sigmoid() >= threshold', 'best >= threshold', 'other pseudo-labels than asked for')
of('model/losses', f'{M}test_pseudo_labels_blend_as_told')(
    'pseudo-labels blend by half', 'logits = out.mask_logits(blend)', 'logits = out.mask_logits()', 'an option without effect')
of('model/checkpoint', f'{M}test_published_models_see_imagenet_statistics')(
    "published models see CLIP's statistics", 'image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)', ')',
    'a published model sees other pictures')
of('model/checkpoint', f'{M}test_tensors_without_a_place_are_told')(
    'unknown tensors are called dropped',
    "(dropped if name is None and key.startswith('decode_head.decoder_1.') else ignored).append(key)",
    'dropped.append(key)', 'a file of another model passes for a published one')
of('model/checkpoint', f'{M}test_tensors_without_a_place_are_told')(
    'unknown tensors are not told',
    "(dropped if name is None and key.startswith('decode_head.decoder_1.') else ignored).append(key)",
    "key.startswith('decode_head.decoder_1.') and dropped.append(key)", 'the same')
of('model/checkpoint', f'{M}test_the_published_model_is_asked_in_the_words_of_openai')(
    'published model asked by another text tower', "text_weights='openai' if b16 else None", 'text_weights=None',
    'classes of a text tower that is not there')
of('model/clip', f'{M}test_weights_are_known_by_their_content', f'{M}test_the_text_cache_tells_weights_apart')(
    'weights known by name', "if path.is_file(): return f'sha256", "if False: return f'sha256",
    'embeddings of an earlier file of this name')
of('model/clip', f'{M}test_the_text_cache_tells_weights_apart')(
    'text cache without the weights', "tokenizer, weights_id(clip, weights)]", 'tokenizer]',
    'embeddings of other weights')
X = 'model/test_text.py::'
of('model/clip', f'{X}test_the_cache_tells_tokenizers_apart')(
    'text cache without the words', "cfg['model_cfg'], tokenizer, weights_id", "cfg['model_cfg'], weights_id",
    'embeddings of other words')
of('model/clip', f'{X}test_whatever_the_tower_it_reads_as_open_clip_does')(
    'padding left out where it is read', "if not causal or getattr(model, 'text_pool_type', 'argmax') != 'argmax':",
    "if not causal:", 'other embeddings than those of the tower')
of('model/clip', f'{X}test_a_damaged_or_foreign_entry_is_made_again')(
    'text cache without its checksum', "if told['checksum'] != _checksum(key, told, text, tokens): return {}", '',
    'embeddings with a wrong bit')
of('model/clip', 'predict/test_more_classes.py::test_a_class_more_costs_its_own_sentences')(
    'every class encoded again', 'for s in dict.fromkeys(flat) if s not in self.known]', 'for s in dict.fromkeys(flat)]',
    'a class more takes as long as all of them')
of('model/clip', 'predict/test_more_classes.py::test_a_file_that_changes_while_it_is_read_is_refused')(
    'a tower of other weights than its key', 'check(weights_id(self.clip, self.weights) == self.id,', 'check(True,',
    'embeddings of one file under the name of another')
of('model/clip', 'model/test_weights.py::test_the_activation_of_a_published_folder_counts')(
    'activation of a folder not compared', "== trained, f'{path} should run", "in (True, False), f'{path} should run",
    'plausible, worse features')
of('model/checkpoint', 'model/test_weights.py::test_the_text_tower_is_found_by_its_content_alone')(
    'moved weights known by name', "same = [p for p in places if file_sha256(p) == known['sha256']]", 'same = places',
    'classes of another text tower')
of('model/clip', f'{X}test_a_file_called_random_is_a_file')(
    'a file called random is a random start', "re.fullmatch('random(:[0-9]+)?', name)", "name.startswith('random')",
    'a random start in the place of weights')
of('model/clip', f'{X}test_a_vocabulary_names_its_classes')(
    'classes of the same tokens pass', 'check(other is name,', 'check(True,', 'every pixel to the first of two classes')
of('model/clip', f'{X}test_what_is_cut_is_named')(
    'a prompt that just fits counts as cut', '(longer[:, length] != padding)', '(longer[:, length] == padding)',
    'a warning about what is read whole')
of('model/clip', f'{M}test_weights_of_openai_run_with_quickgelu')(
    'no QuickGELU check by tag', "if weights == 'openai' or scripted:", 'if scripted:', 'plausible, worse features')


# data
D = 'data/test_colours.py::'
of('data/pictures', f'{D}test_red_is_the_first_channel')(
    'pictures read as BGR', 'return np.array(rgb)', 'return np.array(rgb)[..., ::-1].copy()', 'colours that CLIP never saw')
of('data/pictures', f'{D}test_red_is_the_first_channel')(
    'pictures read as BGR in training',
    'tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())',
    'tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).flip(0).contiguous())',
    'training and prediction see other pictures')
of('data/pictures', 'data/test_damaged.py::test_damage_is_told')(
    'damage swallowed with the EXIF',
    "if image.format == 'PNG': decode(image, getattr(image, 'filename', '') or 'the picture')", 'pass',
    'half a picture, half black')
of('data/transforms', f'{D}test_fine_lines_become_their_mean')(
    'no antialiasing', "F.resize(inpt, params['size'], antialias=True)", "F.resize(inpt, params['size'], antialias=False)",
    'textures that are not in the picture')
of('data/transforms', f'{D}test_fine_lines_become_their_mean')(
    'no antialiasing in training', "mode='bilinear', antialias=True)", "mode='bilinear', antialias=False)", 'the same')
P = 'data/test_training_transform.py::'
of('data/transforms', f'{P}test_one_pass_equals_the_steps')(
    'the mask not turned with the picture', '[::-1 if turned else 1]', '', 'labels of the other side')
of('data/transforms', f'{P}test_one_pass_equals_the_steps')(
    'an axis left unresized', 'if short or equal:', 'if short:', 'pictures a few pixels beside their labels')
of('data/transforms', f'{P}test_hue_without_hue_saturation_value', f'{P}test_colours_one_by_one')(
    'hue turned the other way round', '(p, middle, step, q - s, sign)', '(p, middle, step, s - q, sign)', 'other colours')
of('data/masks', f'{P}test_labels_of_bytes')(
    'values without a meaning pass', 'if raw.translate(None, known): return None', 'pass', 'classes that nobody drew')
for wide in ('-.5, .5', '-.05, .05', '0, .1'):
    of('data/transforms', f'{D}test_colours_are_distorted_as_published')(
        f'hue turned within {wide}', 'super().__init__(hue=(-.1, .1))', f'super().__init__(hue=({wide}))',
        'another augmentation than the published one')

B = 'data/test_benchmarks.py::'
of('data/layouts', f'{B}test_train_ids_of_cityscapes')(
    'train ids pass for the ids of Cityscapes', ' | {IGNORE: -1}', '', 'scores on other classes')
of('data/layouts', f'{B}test_every_value_of_coco_object', f'{B}test_coco_stuff_is_read_as_before')(
    'stuff left out of COCO-Object', 'else i if i < 0 else 0', 'else i if i < 0 else IGNORE', 'background without a pixel')
of('data/layouts', f'{B}test_context_with_all_its_vocabularies')(
    'other labels of Context left out of its background', "rest = 0 if vocab.names[0] == 'background' else IGNORE",
    "rest = IGNORE", 'an easier benchmark than the published one')
of('evaluate/metrics', f'{B}test_a_class_called_255_is_counted')(
    'class 255 left out of the large vocabularies', 'valid = labels != ignore_label(self.k)', 'valid = labels != 255',
    'one class without a score, and pixels without a class in its place')
of('data/check', f'{B}test_large_vocabularies_as_detectron2_has_them')(
    'class 255 counted as none', 'label == ignore_label(k) else', 'label == IGNORE else', 'otseg-prepare reports other shares')


# train
R = 'train/test_rules.py::'
of('train/recipes', f'{R}test_transductive_recipes_have_no_seen_penalty', f'{R}test_recipes_hold_the_published_numbers')(
    'transductive recipes with a seen penalty', 'steps=base.steps // 2, seen_penalty=0.)', 'steps=base.steps // 2)',
    'seen classes lose pixels that are theirs')
of('train/recipes', f'{R}test_recipes_hold_the_published_numbers')(
    'batch of 8', 'batch_size: int = 16 ', 'batch_size: int = 8 ', 'not the published training')
of('train/recipes', f'{R}test_recipes_hold_the_published_numbers')(
    'weight decay of .05', 'weight_decay: float = 0.01 ', 'weight_decay: float = 0.05 ', 'the same')
of('train/batches', f'{R}test_each_epoch_has_an_order_of_its_own')(
    'every epoch in the same order', 'manual_seed(mix_seed(self.seed, e))', 'manual_seed(mix_seed(self.seed, 0))',
    'the same batches over and over')
of('train/step', f'{R}test_every_step_has_a_dropout_of_its_own')(
    'the same dropout in every step', 'mix_seed(recipe.seed, 2, step, ', 'mix_seed(recipe.seed, 2, 0, ',
    'units that are never trained')
of('train/step', f'{R}test_every_step_has_a_dropout_of_its_own')(
    'the same dropout in every process', 'accelerator.process_index * recipe.accumulate + j)', 'j)',
    'less dropout the more processes')
of('train/step', f'{R}test_every_step_has_a_dropout_of_its_own')(
    'the same dropout in every micro-batch', 'accelerator.process_index * recipe.accumulate + j)',
    'accelerator.process_index * recipe.accumulate)', 'the same')
of('train/step', f'{R}test_blend_and_threshold_reach_the_pseudo_labels')(
    'threshold not handed to the step', 'blend=recipe.blend, threshold=recipe.threshold)', 'blend=recipe.blend)',
    'an option without effect')
of('train/step', f'{R}test_blend_and_threshold_reach_the_pseudo_labels')(
    'blend not handed to the step', 'blend=recipe.blend, threshold=recipe.threshold)', 'threshold=recipe.threshold)',
    'the same')
of('train/step', 'study/test_waits.py::test_a_training_step_waits_once')(
    'norm is read by itself', 'norm.reshape(1).to(summed.device)]', 'torch.full((1,), norm.item(), device=summed.device)]',
    'a GPU that is waited for twice a step')
of('train/step', 'study/test_waits.py::test_a_training_step_waits_once')(
    'batches are waited for', 'v.to(accelerator.device, non_blocking=True)', 'v.to(accelerator.device)',
    'the same')
of('model/losses', 'model/test_losses.py::test_losses_of_a_few_masks_at_a_time')(
    'valid pixels of other masks', 'valid.split(chunk))', 'valid[:chunk].repeat(len(valid), 1).split(chunk))',
    'wrong losses where the memory of a GPU is short')
of('train/trainer', f'{R}test_the_decays_of_a_recipe_reach_the_optimizer')(
    'decay of norms not handed on', 'r.weight_decay, r.norm_weight_decay)', 'r.weight_decay)', 'an option without effect')
of('train/trainer', f'{R}test_a_run_starts_from_the_checkpoint_that_it_names')(
    'a start that is not loaded', 'model.load_state_dict(given.model.state_dict())', 'pass',
    'a transductive run from scratch, without a word')
of('train/trainer', f'{R}test_the_best_weights_are_those_of_the_best_hiou')(
    'best by mIoU', "('hiou', scores.hiou) if", "('hiou', scores.miou) if", 'weights that forget the unseen classes')
of('train/run', f'{R}test_a_run_that_goes_on_knows_the_best_score')(
    'best score forgotten', "self.best = max((float(r['best']) for r in earlier), default=float('-inf'))",
    "self.best = float('-inf')",
    'better weights are replaced by worse ones')


# predict
Q = 'predict/test_questions.py::'
of('predict/segmenter', f'{Q}test_classes_with_labels_are_those_of_the_training')(
    'supervised runs asked like inductive ones', "(trained.names if self.setting == 'supervised' else trained.seen_names)",
    '(trained.seen_names)', 'a penalty on some classes that were trained, not on others')
of('predict/segmenter', f'{Q}test_classes_with_labels_are_those_of_the_training')(
    'inductive runs asked like supervised ones', "(trained.names if self.setting == 'supervised' else trained.seen_names)",
    '(trained.names)', 'unseen classes with a penalty')
of('predict/segmenter', f'{Q}test_the_background_is_no_class_text')(
    'background among the class text', 'else self.means)[:len(self.vocab) - self.background]',
    'else self.means)[:len(self.vocab)]',
    'prompt maps of the background')
of('predict/segmenter', f'{Q}test_the_background_has_no_prompt_maps')(
    'prompt maps of the background, too', 'WholePicture(self.model, x[None], question.class_text,',
    'WholePicture(self.model, x[None], question.text,',
    'maps of words that nobody asked for')
of('predict/segmenter', f'{Q}test_the_background_has_no_prompt_maps')(
    'prompt maps of the background in one window', '[m[:len(question.class_text)] for m in', '[m for m in', 'the same')
of('predict/segmenter', f'{Q}test_words_of_a_class_of_a_trained_model')(
    'the mean of several words as the usual way', "'mean' if classes is None else 'max'", "'mean'",
    'names of unlike things near none of them')
of('predict/folder', 'predict/test_photograph.py::test_the_best_word_counts_and_an_earlier_folder_is_not_mixed')(
    'an earlier record taken for any', "noted | dict(synonyms='mean') if same and", 'noted if same and',
    'labels of two kinds in one folder')
of('model/config', 'model/test_weights.py::test_a_clip_is_fed_as_the_file_beside_its_weights_says')(
    'statistics beside weights unread', 'if names_file(self.weights) else {}', 'if False else {}',
    'a CLIP that is fed otherwise than in training')


# study
S = 'study/test_choices.py::'
of('study/runs', f'{S}test_the_penalty_is_chosen_on_val')(
    'penalty chosen on test', 'rows = score_rows(sweep(result.model, val, text,',
    'rows = score_rows(sweep(result.model, test, text,',
    'scores that chose themselves')
of('study/runs', f'{S}test_the_penalty_is_chosen_on_val')(
    'every penalty scored on test', 'text, vocab, [*chosen.items()]), *groups, classes=True)',
    'text, vocab, options), *groups, classes=True)',
    'a table to choose from')
of('study/runs', f'{S}test_unseen_classes_are_the_same_for_every_variant')(
    'unseen group grows as seen classes go', "(load_vocab('toy') if vocab.names == TOY_NAMES else vocab).unseen",
    'vocab.unseen',
    'variants that are compared by different classes')
R = 'project/test_readme.py::'
of('evaluate/gains', f'{R}test_a_verdict_that_no_longer_holds_is_an_error')(
    'every difference is none', "return self._where((self.low or 0) <= 0 <= (self.high or 0),", 'return self._where(True,',
    'a README that says the opposite of its records')
of('evaluate/gains', f'{R}test_a_study_with_a_run_missing_is_an_error')(
    'pairs of the seeds that are left', 'check({*a} == {*b}, f', 'check(True, f', 'gains over other seeds than a table says')


# explore
X = 'explore/test_stale.py::test_nothing_is_stale'
of('explore/probe', X)('stale answer', "_last('answer', (self.version, options),", "_last('answer', (options,),",
'maps of an earlier picture')
of('explore/probe', X)('stale paths', "_last('paths', (self.version, options, name),", "_last('paths', (options, name),",
'the same')
of('explore/probe', X)('paths of another class', "_last('paths', (self.version, options, name),",
"_last('paths', (self.version, options),",
                       'maps of an earlier class')
of('explore/probe', X)('paths of other options', "_last('paths', (self.version, options, name),",
"_last('paths', (self.version, name),",
                       'plans of an earlier temperature')
of('explore/probe', X)('stale probabilities', "_last('probs', (self.version, options, tuple(size), blend, seen_penalty, areas),",
                       "_last('probs', (options, tuple(size), blend, seen_penalty, areas),", 'scores of an earlier picture')
of('explore/probe', X)('probabilities of another blend',
"_last('probs', (self.version, options, tuple(size), blend, seen_penalty, areas),",
                       "_last('probs', (self.version, options, tuple(size), seen_penalty, areas),", 'a handle without effect')
of('explore/probe', X)('stale labels', 'key = self.version, options, tuple(size), blend, seen_penalty',
                       'key = options, tuple(size), blend, seen_penalty', 'labels of an earlier picture')
of('explore/probe', X)('labels of another penalty', 'key = self.version, options, tuple(size), blend, seen_penalty',
                       'key = self.version, options, tuple(size), blend', 'a handle without effect')
of('explore/probe', X)('stale head', "_last('head', options, lambda: head_with", "_last('head', None, lambda: head_with",
                       'a handle without effect')

# colours and names
of('model/vocab', 'data/test_colours.py::test_classes_stay_apart')(
    'two classes of one colour', 'clash = colour and used and', 'clash = not colour and used and',
    'sea, lake and river in one blue')
of('show/figures', 'show/test_figures.py::test_names_in_a_label_map_do_not_collide')(
    'names measured in a panel of another size', 'w * ax.figure.dpi / ax.bbox.width', 'w / 2.3', 'names over each other')

# after the scores
of('evaluate/labels', 'evaluate/test_labels.py::test_the_order_of_the_rules')(
    'a class of just the share is kept', 'areas > rules.area * areas', 'areas >= rules.area * areas',
    'other labels than published')
