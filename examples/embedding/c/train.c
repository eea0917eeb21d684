/*
 * Trains a small market on a toy problem, saves it, and infers with what was loaded again. Prints
 * the losses of every step as hexadecimal floats, which show every bit.
 */
#include <marketplace.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH 16
#define STEPS 40
#define PATHS 12 /* star: 1 + (4 - 1) + (9 - 1) */

static void check(mp_status status) {
  if (status == MP_OK) return;
  fprintf(stderr, "%s\n", mp_last_error());
  exit(1);
}

/* A convolution of 4 vendors, and a linear layer of 9 behind it. */
static mp_market* build(void) {
  mp_conv2d_options conv = {
      .size = sizeof conv, .in_channels = 1, .out_channels = 4, .kernel = {3, 3}};
  mp_linear_options linear = {.size = sizeof linear, .in_features = 36, .out_features = 3};
  mp_market* market = NULL;
  mp_value x = MP_INPUT;
  check(mp_market_create(&market));
  check(mp_add_spec(market, 4, 0));
  check(mp_conv2d(market, x, &conv, &x));
  check(mp_activation(market, x, MP_RELU, &x));
  check(mp_instance_norm(market, x, 4, NULL, &x));
  check(mp_max_pool2d(market, x, NULL, &x));
  check(mp_flatten(market, x, 1, -1, &x));
  check(mp_add_spec(market, 9, 0));
  check(mp_linear(market, MP_INPUT, &linear, &x));
  check(mp_market_finish(market, NULL));
  check(mp_market_initialize(market, 7));
  return market;
}

/* Images (BATCH, 1, 8, 8) with one bright row; its position is the label. */
static void draw(uint8_t* images, int32_t* labels, unsigned* state) {
  for (int b = 0; b < BATCH; ++b) {
    for (int i = 0; i < 64; ++i) {
      *state = *state * 1664525u + 1013904223u;
      images[b * 64 + i] = (uint8_t)(*state >> 26);
    }
    labels[b] = (int32_t)(*state >> 24) % 3;
    for (int i = 0; i < 8; ++i) images[b * 64 + (labels[b] * 3) * 8 + i] += 128;
  }
}

static void train(mp_market* market, mp_tensor x, mp_tensor y, uint8_t* images, int32_t* labels) {
  mp_optimizer_options options = {.size = sizeof options,
                                  .seed = 42,
                                  .plan = MP_PLAN_STAR,
                                  .learning_rate = 0.2f,
                                  .probe_scale = 0.1f};
  mp_optimizer* optimizer = NULL;
  unsigned state = 1;
  check(mp_optimizer_create(market, &options, &optimizer));
  for (int step = 0; step < STEPS; ++step) {
    float losses[PATHS];
    int32_t paths[PATHS * 2];
    int64_t count = PATHS;
    draw(images, labels, &state);
    check(mp_probe(optimizer, &x, &y, losses, paths, &count));
    check(mp_step(optimizer, losses, paths, count, 0.2f, NULL));
    for (int64_t p = 0; p < count; ++p) printf("%a%c", losses[p], p + 1 < count ? ' ' : '\n');
  }
  check(mp_optimizer_free(optimizer));
}

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "market.safetensors";
  uint8_t images[BATCH * 64] = {0};
  int32_t labels[BATCH] = {0};
  float logits[BATCH * 3];
  const int64_t x_shape[] = {BATCH, 1, 8, 8}, y_shape[] = {BATCH};
  mp_tensor x = mp_host_tensor(images, MP_DTYPE_UINT, 8, 4, x_shape);
  mp_tensor y = mp_host_tensor(labels, MP_DTYPE_INT, 32, 1, y_shape);
  mp_market *trained = build(), *loaded = build();
  int64_t step = 0;
  int right = 0;

  train(trained, x, y, images, labels);
  check(mp_market_save(trained, path, STEPS));
  check(mp_market_load(loaded, path, &step));
  check(mp_infer(loaded, &x, logits, BATCH * 3));
  for (int b = 0; b < BATCH; ++b) {
    int64_t best = 0;
    check(mp_topk(logits + 3 * b, 3, 1, 1, NULL, &best));
    right += best == labels[b];
  }
  printf("%d of %d right after %d steps\n", right, BATCH, (int)step);
  check(mp_market_free(trained));
  check(mp_market_free(loaded));
  return 0;
}
