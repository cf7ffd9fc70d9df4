//! The error codes a simulated dock uses, all of them DJI's.

/// Operation not supported in this state; also what a real dock says to a method it does not know.
pub const NOT_SUPPORTED: i64 = 314_000;
/// Cloud command parameters wrong.
pub const BAD_PARAMETER: i64 = 325_001;
/// Aircraft not connected.
pub const AIRCRAFT_OFF: i64 = 325_012;

/// Heavy rain.
pub const HEAVY_RAIN: i64 = 514_134;
/// Wind too strong.
pub const STRONG_WIND: i64 = 514_135;
/// Aircraft did not power on.
pub const NOT_SWITCHED_ON: i64 = 514_109;
/// Not in remote debugging.
pub const NOT_DEBUGGING: i64 = 514_153;
/// Dock busy with another command.
pub const DOCK_BUSY: i64 = 514_116;
/// Task running, debugging refused.
pub const DEBUGGING_REFUSED: i64 = 514_148;
/// Aircraft outside the dock.
pub const AIRCRAFT_OUTSIDE: i64 = 514_156;
/// Battery almost full, not charging.
pub const BATTERY_FULL: i64 = 514_125;
/// Updating, debugging or task refused.
pub const DOCK_UPDATING: i64 = 514_147;
/// DRC: heartbeat timed out.
pub const DRC_SILENT: i64 = 514_301;

/// Update parameters wrong.
pub const UPDATE_PARAMETER: i64 = 312_012;
/// Update already running.
pub const UPDATE_RUNNING: i64 = 312_014;
/// Dock busy, update refused.
pub const UPDATE_WHILE_BUSY: i64 = 312_015;
/// Battery below 20 %, no update.
pub const UPDATE_BATTERY: i64 = 312_704;

/// Battery below 30 %.
pub const BATTERY_LOW: i64 = 316_009;
/// Return failed, has it taken off?
pub const NOT_IN_THE_AIR: i64 = 316_024;

/// Dock busy with a task or log upload.
pub const NOT_IDLE: i64 = 319_001;
/// The task is not known.
pub const UNKNOWN_TASK: i64 = 319_003;
/// Cannot cancel: task running.
pub const TASK_RUNNING: i64 = 319_006;
/// Dock clock not in step with the cloud.
pub const CLOCK_OFF: i64 = 319_008;
/// Dock busy with another task.
pub const OTHER_TASK: i64 = 319_016;
/// Dock uploading logs.
pub const UPLOADING_LOGS: i64 = 319_018;
/// Pause failed.
pub const PAUSE_FAILED: i64 = 319_020;
/// Live flight controls could not be left.
pub const DRC_NOT_LEFT: i64 = 319_021;
/// Fly-to failed.
pub const FLY_TO_FAILED: i64 = 319_022;
/// Fly-to could not be stopped.
pub const NO_FLY_TO: i64 = 319_023;
/// Task still preparing.
pub const TASK_PREPARING: i64 = 319_025;
/// No aircraft control.
pub const NO_AUTHORITY: i64 = 319_030;
/// Fly-to failed: not exactly one point.
pub const POINT_COUNT: i64 = 319_032;
/// Stick command failed: `seq` smaller than the last.
pub const SEQ_WENT_BACK: i64 = 319_033;
/// In remote debugging.
pub const IN_DEBUGGING: i64 = 319_036;
/// Updating.
pub const UPDATING: i64 = 319_038;
/// Resume failed.
pub const NOT_PAUSED: i64 = 319_042;
/// Return could not be cancelled.
pub const NOT_RETURNING: i64 = 319_043;
/// Task could not be stopped.
pub const NOTHING_TO_STOP: i64 = 315_010;
/// Not started, cannot pause.
pub const NOT_STARTED: i64 = 321_260;
/// Battery low, returned.
pub const RETURNED_ON_BATTERY: i64 = 321_773;
/// Strong wind, returned.
pub const RETURNED_ON_WIND: i64 = 321_784;
/// Stopped by hand or fault.
pub const STOPPED_BY_HAND: i64 = 322_281;
/// Stopped: user sent return.
pub const STOPPED_BY_RETURN: i64 = 322_283;

/// Target beyond maximum distance.
pub const TOO_FAR: i64 = 336_514;
/// Target above maximum altitude.
pub const TOO_HIGH: i64 = 336_516;
/// Bad fly-to target.
pub const BAD_TARGET: i64 = 337_026;
/// Bad speed setting.
pub const BAD_SPEED: i64 = 337_027;
/// Stick moved, fly-to left.
pub const LEFT_BY_STICK: i64 = 338_049;
/// Task ended by command, fly-to left.
pub const LEFT_BY_COMMAND: i64 = 338_050;
/// Battery low, returning, fly-to left.
pub const LEFT_ON_BATTERY: i64 = 338_051;

/// Recording did not start.
pub const RECORDING_NOT_STARTED: i64 = 327_007;
/// Recording did not stop.
pub const RECORDING_NOT_STOPPED: i64 = 327_008;
/// Panorama: not in the air.
pub const PANORAMA_ON_GROUND: i64 = 327_206;
/// Panorama stopped.
pub const PANORAMA_STOPPED: i64 = 327_202;

/// Camera missing or wrong type.
pub const NO_CAMERA: i64 = 513_002;
/// Already streaming.
pub const ALREADY_STREAMING: i64 = 513_003;
/// Bad quality setting.
pub const BAD_QUALITY: i64 = 513_005;
/// No stream running.
pub const NO_STREAM: i64 = 513_011;
/// Stream protocol not supported.
pub const BAD_PROTOCOL: i64 = 513_013;
/// Stream parameters wrong or incomplete.
pub const BAD_STREAM: i64 = 513_014;
